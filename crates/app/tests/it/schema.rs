//! JSON output against its published schemas.

use serde_json::Value;

use crate::{
    facts,
    holdfast::{Sandbox, repository},
};

pub(crate) fn check(schema: &str, document: &Value) {
    let path = repository("docs/schema").join(format!("{schema}.json"));
    let schema: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let validator = jsonschema::draft202012::options()
        .should_validate_formats(true)
        .build(&schema)
        .expect("the schema is one");
    let faults: Vec<String> = validator
        .iter_errors(document)
        .map(|fault| format!("{}: {fault}", fault.instance_path()))
        .collect();
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn what_is_printed_as_json_is_what_the_schemas_say() {
    let sandbox = Sandbox::new();
    for kptr in ["2", "0"] {
        let file = sandbox.file("facts.json", facts::bundle("press-3", kptr).to_string());
        let (_, scan) = sandbox.json(["scan".as_ref(), "--replay".as_ref(), file.as_os_str()]);
        check("scan", &scan);
    }
    check("status", &sandbox.json(["status", "--host", "press-3"]).1);
    check(
        "diff",
        &sandbox.json(["diff", "--host", "press-3", "1m", "now"]).1,
    );
    let history = ["history", "--host", "press-3", facts::KPTR_RULE];
    check("history", &sandbox.json(history).1);
}

#[test]
fn a_document_with_a_field_too_many_or_too_few_is_told_apart() {
    let sandbox = Sandbox::new();
    let file = sandbox.file("facts.json", facts::bundle("press-3", "2").to_string());
    let (_, scan) = sandbox.json(["scan".as_ref(), "--replay".as_ref(), file.as_os_str()]);
    let mut without = scan.clone();
    without.as_object_mut().unwrap().remove("scan_id");
    let mut beyond = scan;
    beyond
        .as_object_mut()
        .unwrap()
        .insert("more".into(), Value::Null);
    for wrong in [without, beyond] {
        let caught = std::panic::catch_unwind(|| check("scan", &wrong));
        assert!(caught.is_err(), "the schema accepts {wrong}");
    }
}
