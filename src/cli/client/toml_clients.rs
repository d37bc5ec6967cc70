//! Clients in TOML text, as `[[clients]]` tables or as a list of inline tables. Input and output: the file's text.

use anyhow::Context as _;
use toml_edit::{ArrayOfTables, DocumentMut, InlineTable, Item, Table, TableLike, Value, value};

use super::{Change, unknown};

/// Adds a client, or gives an existing one a new key.
pub(super) fn add(text: &str, id: &str, key: &str) -> anyhow::Result<(String, Change)> {
    let mut document: DocumentMut = text.parse()?;
    if let Some(client) = tables(&mut document)?.into_iter().find(|client| app_id(*client) == id) {
        client.insert("key", value(key));
        return Ok((document.to_string(), Change::Updated));
    }
    // Comments at the end of the file would otherwise end up after the new table.
    let trailing = document.trailing().as_str().unwrap_or_default().to_owned();
    match document.get_mut("clients") {
        Some(Item::ArrayOfTables(clients)) => clients.push(table(id, key, &mut String::new())),
        Some(Item::Value(Value::Array(clients))) if !clients.is_empty() => {
            let mut client = InlineTable::new();
            client.insert("appId", id.into());
            client.insert("key", key.into());
            clients.push(client);
        }
        _ => {
            document.remove("clients");
            let mut prefix = trailing;
            let mut clients = ArrayOfTables::new();
            clients.push(table(id, key, &mut prefix));
            document.insert("clients", Item::ArrayOfTables(clients));
            document.set_trailing("");
        }
    }
    Ok((document.to_string(), Change::Added))
}

/// Removes a client.
pub(super) fn remove(text: &str, id: &str) -> anyhow::Result<String> {
    let mut document: DocumentMut = text.parse()?;
    let known: Vec<_> = tables(&mut document)?.into_iter().map(|client| app_id(client)).collect();
    let index = known.iter().position(|known| known == id).ok_or_else(|| unknown(id, &known))?;
    match document.get_mut("clients") {
        Some(Item::ArrayOfTables(clients)) => {
            clients.remove(index);
        }
        Some(Item::Value(Value::Array(clients))) => {
            clients.remove(index);
        }
        _ => {}
    }
    Ok(document.to_string())
}

/// A client's table, after `prefix` and an empty line.
fn table(id: &str, key: &str, prefix: &mut String) -> Table {
    let mut table = Table::new();
    table.insert("appId", value(id));
    table.insert("key", value(key));
    prefix.push('\n');
    table.decor_mut().set_prefix(std::mem::take(prefix));
    table
}

/// The existing clients.
fn tables(document: &mut DocumentMut) -> anyhow::Result<Vec<&mut dyn TableLike>> {
    match document.get_mut("clients") {
        None => Ok(Vec::new()),
        Some(Item::ArrayOfTables(clients)) => Ok(clients.iter_mut().map(|client| client as &mut dyn TableLike).collect()),
        Some(Item::Value(Value::Array(clients))) => {
            let tables = clients.iter_mut().map(|client| Some(client.as_inline_table_mut()? as &mut dyn TableLike));
            tables.collect::<Option<_>>().context("`clients` holds something that is not a table")
        }
        Some(_) => anyhow::bail!("`clients` is not a list of tables, expected [[clients]] with `appId` and `key`"),
    }
}

/// The id of a client; old files may have numbers.
fn app_id(client: &dyn TableLike) -> String {
    match client.get("appId") {
        Some(Item::Value(Value::String(id))) => id.value().clone(),
        Some(item) => item.to_string().trim().to_owned(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str =
        "# about\nport = 6001 # the port\n\n[[clients]]\n# mine\nappId = \"a\"\nkey = \"1\"\nextra = true\n\n[log]\nlevel = \"info\"\n";

    #[test]
    fn a_client_is_added_and_everything_else_stays() {
        let (text, change) = add(FILE, "b", "2").unwrap();
        assert_eq!(change, Change::Added);
        assert!(text.contains("\n[[clients]]\nappId = \"b\"\nkey = \"2\"\n"), "{text}");
        assert_eq!(remove(&text, "b").unwrap(), FILE);
    }

    #[test]
    fn a_known_client_gets_a_new_key() {
        let (text, change) = add(FILE, "a", "2").unwrap();
        assert_eq!(change, Change::Updated);
        assert_eq!(text, FILE.replace("\"1\"", "\"2\""));
    }

    #[test]
    fn the_first_client_comes_last_in_the_file() {
        let text = laravel_echo_server::config::load::DEFAULTS;
        let (with, _) = add(text, "b", "2").unwrap();
        assert_eq!(with, format!("{text}\n[[clients]]\nappId = \"b\"\nkey = \"2\"\n"));
        let (with, _) = add("clients = []\n", "b", "2").unwrap();
        assert_eq!(with, "\n[[clients]]\nappId = \"b\"\nkey = \"2\"\n");
    }

    #[test]
    fn inline_lists_stay_inline() {
        let text = "clients = [{ appId = 12, key = \"1\" }]\n";
        let (with, _) = add(text, "b", "2").unwrap();
        assert_eq!(with, "clients = [{ appId = 12, key = \"1\" }, { appId = \"b\", key = \"2\" }]\n");
        assert_eq!(remove(&with, "b").unwrap(), text);
        assert_eq!(remove(text, "12").unwrap(), "clients = []\n");
    }

    #[test]
    fn an_unknown_client_is_an_error() {
        let error = remove(FILE, "b").unwrap_err().to_string();
        assert_eq!(error, "there is no client `b`, nothing was removed; the clients are: a");
    }
}
