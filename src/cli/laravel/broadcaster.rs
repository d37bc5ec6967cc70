//! Where Laravel broadcasts to. Input: the evaluated `config/broadcasting.php`. Output: the driver, whether its events can
//! reach this server, and what to change if they cannot.

use super::php::Value;
use super::sources::{Settings, Sources};

/// The variable of Laravel 11 and later, and that of earlier versions.
const VARIABLES: [&str; 2] = ["BROADCAST_CONNECTION", "BROADCAST_DRIVER"];

/// How to add a `redis` connection to a project that has none, which is the default since Laravel 11.
const PUBLISH: &str = "php artisan config:publish broadcasting";
const IN_FILE: &str = "in `connections` of config/broadcasting.php:";
const CONNECTION: &str = "'redis' => ['driver' => 'redis', 'connection' => env('BROADCAST_REDIS_CONNECTION', 'default')],";

/// The connection that events go to by default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct Broadcaster {
    /// The name in `default`.
    name: String,
    /// `None` if no connection has that name.
    driver: Option<String>,
    /// Where it was set.
    place: String,
    /// The variable that sets it, if one does.
    variable: Option<String>,
    /// The Redis connection that it names.
    connection: Option<String>,
    /// What has to be done before `redis` can be the default.
    steps: Vec<&'static str>,
}

/// How events of a driver travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Way {
    /// Through Redis, or an endpoint that looks like one.
    Redis,
    /// Over Pusher's HTTP API, to a host that can be this server.
    Http,
    /// To no one (`log`, `null`), or to another service.
    Elsewhere,
    /// To a connection that `config/broadcasting.php` does not define: Laravel answers every page with an error.
    Undefined,
}

impl Broadcaster {
    /// Reads the project's files; `Err` says why that is not possible.
    pub(super) fn of(sources: &Sources) -> Result<Option<Self>, String> {
        let settings = &sources.broadcasting;
        if settings.value == Value::Null {
            return Ok(None);
        }
        // An unset `env('…')` is null, which Laravel treats as the driver `null`.
        let name = match settings.value.at(&["default"]) {
            Value::Null => "null".to_owned(),
            name => name.string()?,
        };
        // An empty name is not the driver `null`: Laravel looks for a connection with an empty name.
        let connection = settings.value.at(&["connections", &name]);
        let text = |key| match connection.at(&[key]) {
            Value::Null => Ok(None),
            value => value.string().map(Some),
        };
        let driver = match connection {
            Value::Null if name == "null" => Some("null".to_owned()),
            Value::Null => None,
            _ => text("driver")?,
        };
        let (asked, place) = settings.place(&["default"]);
        let place = match (&asked.variable, &asked.found) {
            (Some(variable), None) if place == settings.file => format!("{variable} is not set, the default of {place}"),
            _ => place,
        };
        let connection = text("connection")?;
        Ok(Some(Self { name, driver, place, variable: asked.variable, connection, steps: steps(settings) }))
    }

    /// The broadcaster according to the variables alone, for projects without that file.
    pub(super) fn of_variables(sources: &Sources) -> Option<Self> {
        let (variable, (name, place)) = VARIABLES.iter().find_map(|name| Some((*name, sources.variable(name)?)))?;
        let name = if name.is_empty() { "null".to_owned() } else { name };
        let place = format!("{variable} in {place}");
        let variable = Some(variable.to_owned());
        Some(Self { driver: Some(name.clone()), name, place, variable, connection: None, steps: Vec::new() })
    }

    /// The name of the connection.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Its driver; `None` if no connection has that name.
    pub(super) fn driver(&self) -> Option<&str> {
        self.driver.as_deref()
    }

    /// The variable that sets it, if one does.
    pub(super) fn variable(&self) -> Option<&str> {
        self.variable.as_deref()
    }

    /// How its events travel.
    pub(in crate::cli) fn way(&self) -> Way {
        match self.driver.as_deref() {
            Some("redis") => Way::Redis,
            Some("pusher" | "reverb") => Way::Http,
            Some(_) => Way::Elsewhere,
            None => Way::Undefined,
        }
    }

    /// The connection of `config/database.php` that it publishes on, if it names one.
    pub(super) fn redis_connection(&self) -> Option<&str> {
        self.connection.as_deref().filter(|name| self.way() == Way::Redis && !name.is_empty())
    }

    /// The driver and where it was set, as text.
    pub(in crate::cli) fn shown(&self) -> String {
        format!("`{}` ({})", self.driver.as_ref().unwrap_or(&self.name), self.place)
    }

    /// The steps that make events reach this server, one per line.
    pub(in crate::cli) fn fix(&self) -> String {
        let mut lines: Vec<_> = self.steps.iter().map(|step| (*step).to_owned()).collect();
        let after = "then `php artisan config:clear` and `php artisan queue:restart`";
        lines.push(match &self.variable {
            _ if self.way() == Way::Undefined && self.name == "redis" => after.to_owned(),
            Some(variable) => format!("{variable}=redis in Laravel's .env, {after}"),
            None => format!("'default' => 'redis' in {}, {after}", self.place),
        });
        lines.join("\n")
    }
}

/// The steps to add a `redis` connection, if there is none.
fn steps(settings: &Settings) -> Vec<&'static str> {
    let Value::Null = settings.value.at(&["connections", "redis"]) else { return Vec::new() };
    // The artisan command refuses if the file exists already.
    if settings.is_own { vec![IN_FILE, CONNECTION] } else { vec![PUBLISH, IN_FILE, CONNECTION] }
}
