//! Rules that a second key approves before they are published.

use super::*;
use crate::fleet::nodes::key;

/// The file of the proposal.
fn proposal(node: &Node) -> String {
    node.setup.path("proposal.json").display().to_string()
}

/// Publishes the proposal without a look; whether it went well, and the errors.
fn publish(node: &Node, key: &str, more: &[&str]) -> (bool, String) {
    let output = told(node, &[&["rules", "publish", &proposal(node), "--key", key, "--no-impact"], more].concat());
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Approves the proposal; what is said.
fn approve(node: &Node, key: &str, author: &str, more: &[&str]) -> String {
    fine(node, &[&["rules", "approve", &proposal(node), "--key", key, "--author", author], more].concat())
}

/// Writes a proposal.
fn propose(node: &Node, rules: &Value, key: &str) -> String {
    node.setup.write("new.json", &rules.to_string());
    let (new, file, geoip) = (node.setup.path("new.json"), proposal(node), database().display().to_string());
    let new = new.display().to_string();
    let words = ["rules", "publish", &new, "--reason", "a test", "--author", "ann", "--key", key];
    fine(node, &[&words[..], &["--propose", &file, "--geoip", &geoip]].concat())
}

#[test]
fn a_second_key_opens_the_gates_for_the_very_document_that_it_signed() {
    let world = World::start();
    let folder = tempfile::tempdir().expect("a folder");
    let [(ann, ann_public), (bob, bob_public), (eve, _)] =
        ["ann.key", "bob.key", "eve.key"].map(|name| key(folder.path(), name));
    let settings =
        format!("trusted_publishers = [{ann_public:?}, {bob_public:?}]\n[fleet.gates]\nmax_moved = \"1%\"\n");
    let node = writer_of(&rules(&world, 1, &FRANKFURT_FIRST), &settings);
    let proposed = propose(&node, &rules(&world, 1, &PARIS_FIRST), &ann);
    assert!(proposed.contains("gate shut: chat: ") && has(&node, 1), "nothing is published: {proposed}");

    // What nobody else approved, or a stranger, or the publisher alone, opens no gate.
    let proposal = proposal(&node);
    let empty = std::fs::read_to_string(&proposal).expect("a proposal");
    let try_it = || publish(&node, &ann, &[]);
    assert!(try_it().1.contains("gate shut: "));
    for (key, author) in [(&eve, "eve"), (&ann, "ann")] {
        approve(&node, key, author, &[]);
        assert!(try_it().1.contains("gate shut: "), "{author}");
        std::fs::write(&proposal, &empty).expect("written");
    }
    // Whoever opens the gates by a number still can't claim an approval that isn't one.
    approve(&node, &eve, "bob", &[]);
    let (is_published, errors) = publish(&node, &ann, &["--accept-moved", "100%"]);
    assert!(!is_published && errors.contains("an approval of its head isn't signed by another"), "{errors}");
    std::fs::write(&proposal, &empty).expect("written");

    let text = approve(&node, &bob, "bob", &["--geoip", &database().display().to_string()]);
    assert!(text.contains("eu-frankfurt → eu-paris"), "who approves sees what it changes: {text}");
    assert!(text.ends_with(&format!("is approved in {proposal}: a test\n")), "and then that it is signed: {text}");
    let good = std::fs::read_to_string(&proposal).expect("a proposal");
    let forged = good.replace("a test", "another");
    std::fs::write(&proposal, forged).expect("written");
    assert!(try_it().1.contains("gate shut: "), "another reason was never approved");
    std::fs::write(&proposal, good.replace("eu-paris", "us-virginia")).expect("written");
    assert!(try_it().1.contains("isn't the one that its head names"));
    assert!(has(&node, 1), "nothing of all that was published");
    told_before_it_is_signed(&node, &bob, &good);

    std::fs::write(&proposal, &good).expect("written");
    let (is_published, errors) = try_it();
    assert!(is_published, "{errors}");
    wait::until_true("it is served", || has(&node, 2));
    let head = fleet(&node)["head"].clone();
    assert_eq!(
        (&head["author"], &head["approved_by"], &head["reason"]),
        (&"ann".into(), &json!(["bob"]), &"a test".into())
    );
    assert!(head["impact"].as_str().is_some_and(|impact| impact.starts_with("chat: ")), "{head}");
    assert!(try_it().1.contains(" but revision 2 is in service; propose it again"));
}

/// Who approves is told what it changes even if the signature can't be written.
fn told_before_it_is_signed(node: &Node, key: &str, good: &str) {
    // The proposal is replaced by a new file, for which this folder has no room: its name is too long.
    let name = format!("{}.json", "p".repeat(250));
    let long = node.setup.path(&name);
    std::fs::write(&long, good).expect("written");
    let long = long.display().to_string();
    let geoip = database().display().to_string();
    let said = told(node, &["rules", "approve", &long, "--key", key, "--author", "bob", "--geoip", &geoip]);
    let (output, errors) = (String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    assert!(!said.status.success() && errors.contains("can't be written"), "{output}{errors}");
    assert!(output.contains("eu-frankfurt → eu-paris") && !output.contains("is approved"), "{output}");
    assert_eq!(std::fs::read_to_string(&long).expect("as it was"), good);
}
