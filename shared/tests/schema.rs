//! `shared/rules.schema.json` is what the types say. `BLESS=1 cargo test -p bailiwick-rules --test schema` rewrites it.

#[test]
fn the_schema_on_disk_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/rules.schema.json");
    let current = bailiwick_rules::rules::json_schema_text();
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(path, &current).unwrap();
    }
    let on_disk = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        on_disk == current,
        "{path} is not current; write it anew with BLESS=1 cargo test -p bailiwick-rules --test schema"
    );
}
