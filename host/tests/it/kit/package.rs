//! `cardcage plugin package`.

use std::collections::BTreeMap;
use std::ffi::OsString;

use serde_json::Value;

use super::*;

/// `cardcage plugin package` in this folder, with what `./justw fetch-tools` got on the PATH and the outside tests' artefacts.
fn package(repo: &Path, arguments: &[&str]) -> Output {
    let tools = workspace_root().join(".tools");
    assert!(tools.join("cargo-auditable").exists(), "run `scripts/fetch-tool cargo-auditable` first");
    let mut path = OsString::from(tools);
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap());
    let _lock = outside::lock();
    let mut command = Command::new(env!("CARGO_BIN_EXE_cardcage"));
    // The profile that the outside tests build with: so only the plugin itself is compiled here.
    command
        .args(["plugin", "package", "--json", "--profile", "dev"])
        .args(arguments)
        .args(["--", "--offline"]);
    command.env("PATH", path).env("CARGO_TARGET_DIR", outside::target()).env_remove("CARDCAGE_GIT_REVISION");
    command.current_dir(repo).stdin(Stdio::null()).output().unwrap()
}

fn packaged(repo: &Path, arguments: &[&str]) -> Value {
    let output = package(repo, arguments);
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn git(repo: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new("git");
    command.args(["-c", "user.name=Ada", "-c", "user.email=ada@example.com"]).args(arguments);
    let output = command.current_dir(repo).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    text(&output.stdout).trim().to_owned()
}

/// The files of an archive by their names, each with its time and owner.
fn unpacked(archive: &Path) -> BTreeMap<String, Vec<u8>> {
    let file = zstd::Decoder::new(std::fs::File::open(archive).unwrap()).unwrap();
    let mut tar = tar::Archive::new(file);
    let read = |mut entry: tar::Entry<'_, _>| {
        let header = entry.header();
        assert_eq!((header.mtime().unwrap(), header.uid().unwrap()), (0, 0));
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
        (entry.path().unwrap().to_str().unwrap().to_owned(), content)
    };
    tar.entries().unwrap().map(|entry| read(entry.unwrap())).collect()
}

#[test]
fn package_holds_the_library_with_revision_and_dependencies_and_what_it_says_of_itself() {
    let folder = elsewhere("package");
    assert!(cardcage(&folder, &["plugin", "new", "parcel"]).status.success());
    let repo = folder.join("parcel");
    cargo(&repo, &["generate-lockfile"]);
    git(&repo, &["init", "--quiet"]);
    git(&repo, &["add", "."]);
    git(&repo, &["commit", "--quiet", "--message", "A parcel"]);

    let told = packaged(&repo, &[]);
    assert_eq!(told["manifest"]["git_revision"], git(&repo, &["rev-parse", "HEAD"]));
    assert_eq!(told["audited"], true);
    let stem = format!("parcel-0.1.0-{}", told["manifest"]["target"].as_str().unwrap());
    let archive = repo.join(format!("packages/{stem}.tar.zst"));
    let bytes = std::fs::read(&archive).unwrap();
    let files = unpacked(&archive);
    let file = |name: &str| &files[&format!("{stem}/{name}")];
    let json = |name: &str| serde_json::from_slice::<Value>(file(name)).unwrap();
    assert_eq!(files.len(), 7, "{:?}", files.keys());
    assert_eq!(json("tasks.json")[0]["name"], "echo");
    assert!(
        json("tasks.json")[0]["input_schema"].is_object() || json("tasks.json")[0]["input_schema"] == true
    );
    assert_eq!(json("schedules.json"), Value::Array(Vec::new()));
    assert!(json("settings.schema.json")["properties"]["greeting"].is_object());
    let openapi = json("openapi.json");
    assert_eq!(openapi["paths"]["/parcel/inline"]["get"]["operationId"], "parcel.inline", "{openapi}");
    let names = json("manifest.json")["dependencies"].to_string();
    assert!(names.contains("\"serde\"") && names.contains("cardcage-abi"), "{names}");

    // As an operator does it.
    for (name, content) in &files {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    let sums = Command::new("sha256sum").args(["-c", "SHA256SUMS"]).current_dir(folder.join(&stem)).output();
    let sums = text(&sums.unwrap().stdout);
    assert_eq!(sums.matches(": OK").count(), 6, "{sums}");
    let library = folder.join(&stem).join("libcardcage_plugin_parcel.so");
    let inspected = cardcage(&folder, &["plugin", "inspect", library.to_str().unwrap()]);
    assert!(inspected.status.success(), "{inspected:?}");

    // The lock says what it was built from.
    let config = folder.join("cardcage.toml");
    std::fs::write(&config, format!("[plugins.parcel]\nlibrary = {library:?}\n")).unwrap();
    let locked = cardcage(&folder, &["plugin", "lock", "--config", config.to_str().unwrap()]);
    assert!(locked.status.success(), "{locked:?}");
    let lock: toml::Table = std::fs::read_to_string(folder.join("plugins.lock")).unwrap().parse().unwrap();
    let revision = lock["plugin"][0]["git_revision"].as_str().unwrap();
    assert_eq!(revision, told["manifest"]["git_revision"], "{lock}");

    packaged(&repo, &["--out", "again"]);
    let again = std::fs::read(repo.join(format!("again/{stem}.tar.zst"))).unwrap();
    assert!(bytes == again, "the same library gives the same archive");
    // `again` is not ignored by git.
    let told = packaged(&repo, &[]);
    assert!(told["manifest"]["git_revision"].as_str().unwrap().ends_with("-dirty"), "{told}");

    std::fs::write(repo.join("src/lib.rs"), "fn broken(").unwrap();
    let output = package(&repo, &["--out", "broken"]);
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("error: ") && told.contains("cardcage: the build failed"), "{told}");
    assert!(!repo.join("broken").exists());
}

#[test]
fn package_is_built_for_release_where_nothing_else_is_said() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = elsewhere("release");
    std::fs::write(folder.join("Cargo.toml"), "").unwrap();
    // What cargo is asked for is all that is looked at.
    let cargo = folder.join("cargo");
    std::fs::write(&cargo, "#!/bin/sh\necho \"asked: $*\" >&2\nexit 1\n").unwrap();
    std::fs::set_permissions(&cargo, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_cardcage"));
    command.args(["plugin", "package", "--no-audit"]).env("CARGO", &cargo).env("PATH", &folder);
    let told = text(&command.current_dir(&folder).stdin(Stdio::null()).output().unwrap().stderr);
    assert!(told.contains("asked: ") && told.contains("--profile release"), "{told}");
}

#[test]
fn folder_without_a_plugin_and_machine_without_cargo_auditable_are_told_so() {
    let folder = elsewhere("no-package");
    let output = cardcage(&folder, &["plugin", "package"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(text(&output.stderr).contains("Cargo.toml is not there"), "{output:?}");

    std::fs::write(folder.join("Cargo.toml"), "").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_cardcage"));
    command.args(["plugin", "package"]).current_dir(&folder).env("PATH", &folder).env("CARGO_HOME", &folder);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text(&output.stderr).contains("`cargo install cargo-auditable --locked`"), "{output:?}");
    assert!(text(&output.stderr).contains("--no-audit"), "{output:?}");
}
