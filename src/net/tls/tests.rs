//! Keys and certificates as OpenSSL writes them, and the server as `openssl s_client` sees it.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::validity::{Validity, at};
use super::*;

/// A directory that is removed after the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("echo-tls-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    /// A new self-signed certificate for `name`, with its unencrypted key.
    fn certificate(&self, name: &str) -> (String, String) {
        let (certificate, key) = (self.path(&format!("{name}.crt")), self.path(&format!("{name}.key")));
        let subject = format!("/CN={name}");
        openssl(&[
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "30",
            "-subj",
            &subject,
            "-keyout",
            &key,
            "-out",
            &certificate,
        ]);
        (certificate, key)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn openssl(arguments: &[&str]) {
    let output = Command::new("openssl").args(arguments).output().expect("these tests need the command openssl");
    assert!(output.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn config(certificate: &str, key: &str, passphrase: &str) -> Config {
    let _ = ring::default_provider().install_default();
    Config {
        protocol: Protocol::Https,
        ssl_cert_path: certificate.to_owned(),
        ssl_key_path: key.to_owned(),
        ssl_passphrase: Secret(passphrase.to_owned()),
        ..Config::default()
    }
}

fn error_of(config: &Config) -> String {
    Tls::new(config).unwrap_err().to_string()
}

#[test]
fn keys_of_all_formats_are_read() {
    let folder = Folder::new("forms");
    let (certificate, key) = folder.certificate("localhost");
    let legacy = ["-aes128", "-aes192", "-aes256", "-des3"].map(|cipher| vec!["rsa", "-traditional", cipher]);
    let pkcs8 = [
        vec!["pkcs8", "-topk8", "-v2", "aes256"],
        vec!["pkcs8", "-topk8", "-v2", "aes128", "-v2prf", "hmacWithSHA1"],
        vec!["pkcs8", "-topk8", "-v2", "des3"],
        vec!["pkcs8", "-topk8", "-scrypt"],
    ];
    let plain = [vec!["rsa", "-traditional"], vec!["pkcs8", "-topk8", "-nocrypt"]];
    for (index, form) in legacy.iter().chain(&pkcs8).chain(&plain).enumerate() {
        let path = folder.path(&format!("{index}.key"));
        openssl(&[form.as_slice(), &["-in", &key, "-out", &path, "-passout", "pass:open sesame"]].concat());
        let good = Tls::new(&config(&certificate, &path, "open sesame"));
        assert!(good.is_ok(), "{form:?}: {:?}", good.unwrap_err());
        if plain.contains(form) {
            continue;
        }
        assert_eq!(
            error_of(&config(&certificate, &path, "close")),
            format!("sslPassphrase: does not open the key in `{path}`"),
            "{form:?}"
        );
        let missing = format!("sslPassphrase: is empty, but the key in `{path}` is encrypted");
        assert_eq!(error_of(&config(&certificate, &path, "")), missing, "{form:?}");
    }
}

#[test]
fn elliptic_curve_keys_are_read() {
    let folder = Folder::new("curves");
    let (sec1, locked) = (folder.path("sec1.key"), folder.path("locked.key"));
    let certificate = folder.path("ec.crt");
    // `ecparam` writes a block of parameters before the key.
    openssl(&["ecparam", "-name", "prime256v1", "-genkey", "-out", &sec1]);
    openssl(&["req", "-x509", "-key", &sec1, "-days", "30", "-subj", "/CN=localhost", "-out", &certificate]);
    openssl(&["ec", "-aes256", "-in", &sec1, "-out", &locked, "-passout", "pass:x"]);
    for (key, passphrase) in [(&sec1, ""), (&locked, "x")] {
        let loaded = Tls::new(&config(&certificate, key, passphrase));
        assert!(loaded.is_ok(), "{:?}", loaded.unwrap_err());
    }
}

#[test]
fn errors_name_the_setting_and_the_file() {
    let folder = Folder::new("errors");
    let (certificate, key) = folder.certificate("one");
    let (_, other) = folder.certificate("two");
    let gone = folder.path("gone");
    assert_eq!(error_of(&config(&gone, &key, "")), format!("sslCertPath: cannot read `{gone}`"));
    assert_eq!(error_of(&config(&certificate, &gone, "")), format!("sslKeyPath: cannot read `{gone}`"));
    assert_eq!(error_of(&config(&key, &key, "")), format!("sslCertPath: `{key}` holds no certificate in PEM form"));
    assert_eq!(error_of(&config(&certificate, &certificate, "")), format!("sslKeyPath: `{certificate}` holds no private key in PEM form"));
    assert_eq!(
        error_of(&config(&certificate, &other, "")),
        format!("sslKeyPath: the key in `{other}` does not belong to the certificate in `{certificate}`")
    );
    let odd = folder.path("odd.key");
    let text = fs::read_to_string(&key).unwrap().replacen(
        "-----\n",
        "-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: RC2-40-CBC,0011223344556677\n\n",
        1,
    );
    fs::write(&odd, text).unwrap();
    assert!(error_of(&config(&certificate, &odd, "x")).contains("DEK-Info: RC2-40-CBC"), "{}", error_of(&config(&certificate, &odd, "x")));
}

#[test]
fn a_chain_may_be_in_the_certificates_file_or_in_its_own() {
    let folder = Folder::new("chain");
    let (certificate, key) = folder.certificate("leaf");
    let (authority, _) = folder.certificate("authority");
    let both = folder.path("both.crt");
    fs::write(&both, [fs::read(&certificate).unwrap(), fs::read(&authority).unwrap()].concat()).unwrap();
    let length = |certificate: &str, chain: &str| {
        let config = Config { ssl_cert_chain_path: chain.to_owned(), ..config(certificate, &key, "") };
        Tls::new(&config).unwrap().unwrap().current.load().cert.len()
    };
    assert_eq!(length(&certificate, ""), 1);
    assert_eq!(length(&both, ""), 2);
    assert_eq!(length(&certificate, &authority), 2);
    // A certificate in both files is sent once.
    assert_eq!(length(&certificate, &both), 2);
}

#[test]
fn the_validity_of_a_certificate_is_checked() {
    let folder = Folder::new("times");
    let (certificate, _) = folder.certificate("localhost");
    let certificate = &certificates("sslCertPath", &certificate).unwrap()[0];
    let day = Duration::from_secs(24 * 3600);
    let now = SystemTime::now();
    assert_eq!(at(certificate, now + Duration::from_secs(60)), Some(Validity::Valid));
    assert!(matches!(at(certificate, now - day), Some(Validity::NotYet { .. })));
    assert!(matches!(at(certificate, now + 25 * day), Some(Validity::EndsSoon { .. })));
    assert!(matches!(at(certificate, now + 31 * day), Some(Validity::Expired { .. })));
}

/// Accepts connections and holds them until the test ends.
async fn serve(acceptor: Acceptor) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(stream) = acceptor.accept(stream).await {
                open.push(stream);
            }
        }
    });
    address
}

/// The output of `openssl s_client` for a server.
async fn probe(address: &str, arguments: &[&str]) -> String {
    let arguments: Vec<String> = ["s_client", "-connect", address].iter().chain(arguments).map(ToString::to_string).collect();
    let run = move || Command::new("openssl").args(arguments).stdin(Stdio::null()).output().expect("these tests need the command openssl");
    let output = tokio::task::spawn_blocking(run).await.unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// The name in the certificate that a server shows.
async fn subject(address: &str) -> String {
    let seen = probe(address, &[]).await;
    let line = seen.lines().find_map(|line| line.strip_prefix("subject=")).unwrap_or_else(|| panic!("no certificate in {seen}"));
    line.rsplit('=').next().unwrap().trim().to_owned()
}

#[tokio::test]
async fn only_tls_1_2_and_1_3_are_accepted() {
    let folder = Folder::new("versions");
    let (certificate, key) = folder.certificate("localhost");
    let address = serve(Tls::new(&config(&certificate, &key, "")).unwrap().unwrap().acceptor().unwrap()).await;
    for (version, name) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let seen = probe(&address, &[version, "-alpn", "h2,http/1.1"]).await;
        assert!(seen.contains(&format!("New, {name}")), "{version}: {seen}");
        assert!(seen.contains("ALPN protocol: http/1.1"), "{seen}");
    }
    for (version, ciphers) in
        [("-tls1", "ALL:@SECLEVEL=0"), ("-tls1_1", "ALL:@SECLEVEL=0"), ("-tls1_2", "AES128-SHA"), ("-tls1_2", "aNULL:@SECLEVEL=0")]
    {
        let seen = probe(&address, &[version, "-cipher", ciphers]).await;
        assert!(seen.contains("Cipher is (NONE)"), "{version} {ciphers}: {seen}");
    }
}

fn copy(from: &(String, String), to: &(String, String)) {
    fs::copy(&from.0, &to.0).unwrap();
    fs::copy(&from.1, &to.1).unwrap();
}

#[tokio::test]
async fn changed_files_are_loaded_and_bad_ones_are_not() {
    let folder = Folder::new("renewal");
    let (first, second) = (folder.certificate("first"), folder.certificate("second"));
    let used = (folder.path("used.crt"), folder.path("used.key"));
    copy(&first, &used);
    let tls = Tls::new(&config(&used.0, &used.1, "")).unwrap().unwrap();
    let stop = CancellationToken::new();
    let watching = tokio::spawn(Arc::clone(&tls).watch(stop.clone()));
    let address = serve(tls.acceptor().unwrap()).await;
    assert!(subject(&address).await == "first");

    // Half of a renewal: the new certificate with the old key. The files are loaded once they match again.
    fs::copy(&second.0, &used.0).unwrap();
    tls.refresh();
    assert!(subject(&address).await == "first");
    fs::copy(&second.1, &used.1).unwrap();
    let renewed = async {
        while subject(&address).await != "second" {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), renewed).await.expect("the new certificate is used");

    // A failed reload changes nothing.
    assert!(tls.read(&config(&first.0, &second.1, "")).is_err());
    assert!(subject(&address).await == "second");
    tls.take(tls.read(&config(&first.0, &first.1, "")).unwrap());
    assert!(subject(&address).await == "first");
    stop.cancel();
    watching.await.unwrap();
}
