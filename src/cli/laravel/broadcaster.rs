//! Where Laravel broadcasts to. Input: `config/broadcasting.php` and the variables that it reads. Output: the driver,
//! whether its events can come here, and what to write where they cannot.

use std::cell::RefCell;
use std::path::Path;

use laravel_echo_server::config::env::Environment;

use super::php::Php;

/// The variable of Laravel 11 and later, and that of the versions before.
const VARIABLES: [&str; 2] = ["BROADCAST_CONNECTION", "BROADCAST_DRIVER"];

/// The connection that events go to by default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct Broadcaster {
    driver: String,
    /// Where it was set.
    place: String,
    /// The variable that sets it, if one does.
    variable: Option<String>,
    /// The Redis connection that it names.
    connection: Option<String>,
}

/// How events of a driver travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Way {
    /// Through Redis, or what looks like one.
    Redis,
    /// Over Pusher's HTTP API, to a host that can be this server.
    Http,
    /// To nobody (`log`, `null`), or to a service elsewhere.
    Elsewhere,
}

impl Broadcaster {
    /// What the PHP file at `path` says.
    pub(super) fn of_file(path: &Path, text: &str, environment: &Environment) -> Option<Self> {
        let (asked, found) = (RefCell::new(None), RefCell::new(None));
        let variable = |name: &str| {
            asked.borrow_mut().get_or_insert(name.to_owned());
            let (value, origin) = environment.expanded(name, &mut Vec::new())?;
            found.borrow_mut().get_or_insert(format!("{name} in {origin}"));
            Some(value)
        };
        let settings = Php::parse(text);
        // `env('…')` without a value is null, which Laravel takes for the driver of that name.
        let name = match settings.at(&["default"])? {
            Php::Unknown => return None,
            default => default.text(&variable).unwrap_or_else(|| "null".to_owned()),
        };
        let driver =
            settings.at(&["connections", &name, "driver"]).and_then(|driver| driver.text(&|_| None)).unwrap_or_else(|| name.clone());
        let expanded = |name: &str| environment.expanded(name, &mut Vec::new()).map(|(value, _)| value);
        let connection = settings.at(&["connections", &name, "connection"]).and_then(|connection| connection.text(&expanded));
        let (variable, place) = (asked.into_inner(), found.into_inner());
        let place = place.unwrap_or_else(|| match &variable {
            Some(variable) => format!("{variable} is not set, the default of {}", path.display()),
            None => path.display().to_string(),
        });
        Some(Self { driver, place, variable, connection })
    }

    /// What the variables alone say, where there is no such file.
    pub(super) fn of_variables(environment: &Environment) -> Option<Self> {
        let (name, (driver, origin)) =
            VARIABLES.iter().find_map(|name| Some((*name, environment.get(name).map(|(value, origin)| (value.to_owned(), origin))?)))?;
        Some(Self { driver, place: format!("{name} in {origin}"), variable: Some(name.to_owned()), connection: None })
    }

    /// How its events travel.
    pub(in crate::cli) fn way(&self) -> Way {
        match self.driver.as_str() {
            "redis" => Way::Redis,
            "pusher" | "reverb" => Way::Http,
            _ => Way::Elsewhere,
        }
    }

    /// The connection of `config/database.php` that it publishes on, where it names one.
    pub(super) fn redis_connection(&self) -> Option<&str> {
        self.connection.as_deref().filter(|_| self.way() == Way::Redis)
    }

    /// The driver and the place, for people.
    pub(in crate::cli) fn shown(&self) -> String {
        format!("`{}` ({})", self.driver, self.place)
    }

    /// What to write, so that events come here.
    pub(in crate::cli) fn mend(&self) -> String {
        let write = match &self.variable {
            Some(variable) => format!("{variable}=redis in Laravel's .env"),
            None => format!("'default' => 'redis' in {}", self.place),
        };
        format!("{write}, then `php artisan config:clear` and `php artisan queue:restart`")
    }
}

#[cfg(test)]
mod tests {
    use laravel_echo_server::config::env::Origin;

    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        let mut environment = Environment::default();
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        environment.push(Origin::File(".env".into()), variables);
        environment
    }

    fn of_file(text: &str, variables: &[(&str, &str)]) -> Broadcaster {
        Broadcaster::of_file(Path::new("config/broadcasting.php"), text, &environment(variables)).unwrap()
    }

    const OLD: &str = "<?php return ['default' => env('BROADCAST_DRIVER', 'null'), 'connections' => [
        'live' => ['driver' => 'redis', 'connection' => 'echo'], 'log' => ['driver' => 'log'], 'null' => ['driver' => 'null']]];";

    #[test]
    fn the_file_says_which_variable_counts() {
        let driver = |variables: &[(&str, &str)]| of_file(OLD, variables).shown();
        assert_eq!(driver(&[("BROADCAST_DRIVER", "log"), ("BROADCAST_CONNECTION", "redis")]), "`log` (BROADCAST_DRIVER in .env)");
        assert_eq!(driver(&[("BROADCAST_DRIVER", "live")]), "`redis` (BROADCAST_DRIVER in .env)");
        for nothing in [&[][..], &[("BROADCAST_DRIVER", "null")], &[("BROADCAST_CONNECTION", "redis")]] {
            assert_eq!(driver(nothing), "`null` (BROADCAST_DRIVER is not set, the default of config/broadcasting.php)");
        }
        assert!(of_file(OLD, &[]).mend().starts_with("BROADCAST_DRIVER=redis in Laravel's .env, then"));
        let fixed = of_file("<?php return ['default' => 'log'];", &[("BROADCAST_DRIVER", "redis")]);
        assert!(fixed.mend().starts_with("'default' => 'redis' in config/broadcasting.php"), "{}", fixed.mend());
        let unknown = "<?php return ['default' => pick(), 'connections' => []];";
        assert_eq!(Broadcaster::of_file(Path::new("x"), unknown, &environment(&[])), None);
    }

    #[test]
    fn without_a_file_the_newer_variable_comes_first() {
        let of = |variables: &[(&str, &str)]| Broadcaster::of_variables(&environment(variables));
        let both = of(&[("BROADCAST_DRIVER", "redis"), ("BROADCAST_CONNECTION", "log")]).unwrap();
        assert_eq!(both.shown(), "`log` (BROADCAST_CONNECTION in .env)");
        assert_eq!(of(&[("BROADCAST_DRIVER", "null")]).unwrap().shown(), "`null` (BROADCAST_DRIVER in .env)");
        assert_eq!(of(&[("BROADCAST_DRIVER", "")]), None);
    }

    #[test]
    fn drivers_differ_in_where_their_events_go() {
        let way = |driver: &str| Broadcaster::of_variables(&environment(&[("BROADCAST_CONNECTION", driver)])).unwrap().way();
        assert_eq!(["redis", "pusher", "reverb"].map(way), [Way::Redis, Way::Http, Way::Http]);
        assert_eq!(["log", "null", "ably", "mine"].map(way), [Way::Elsewhere; 4]);
    }
}
