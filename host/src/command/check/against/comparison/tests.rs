//! What is told of two schemas, and what is not.

use super::super::schema::Schema;
use super::*;
use serde_json::json;

fn told(sent: &Value, taken: &Value) -> Vec<String> {
    misfits(Schema::whole(sent), Schema::whole(taken)).iter().map(Misfit::for_sender).collect()
}

fn object(members: Value, required: &[&str]) -> Value {
    json!({ "type": "object", "properties": members, "required": required })
}

#[test]
fn what_only_grows_breaks_nobody() {
    let before = object(json!({ "id": { "type": "integer", "minimum": 0 } }), &["id"]);
    for after in [
        before.clone(),
        json!(true),
        object(json!({ "id": { "type": "number" }, "note": { "type": "string" } }), &[]),
        object(json!({ "id": { "type": ["integer", "null"], "minimum": -5 } }), &["id"]),
        object(json!({ "id": { "anyOf": [{ "type": "string" }, { "type": "integer" }] } }), &["id"]),
    ] {
        assert_eq!(told(&before, &after), Vec::<String>::new(), "{after}");
    }
}

#[test]
fn what_takes_less_is_told_with_its_place() {
    let before = object(
        json!({ "id": { "type": "integer" }, "way": { "enum": ["a", "b"] }, "lines": {
            "type": "array", "items": { "type": "object", "properties": { "n": { "type": "integer" } } } } }),
        &["id"],
    );
    let with = |member: &str, schema: Value| {
        let mut after = before.clone();
        after["properties"][member] = schema;
        after
    };
    let mut required = before.clone();
    required["required"] = json!(["id", "way"]);
    let mut closed = before.clone();
    closed["additionalProperties"] = json!(false);
    let line = json!({ "type": "object", "properties": { "n": { "type": "string" } } });
    for (after, what) in [
        (with("id", json!({ "type": "string" })), "`id` was integer, and is string"),
        (with("id", json!({ "type": "integer", "maximum": 9 })), "`id` has a maximum of 9"),
        (with("way", json!({ "enum": ["a"] })), "`way` is no longer \"b\""),
        (with("lines", json!({ "type": "array", "items": line })), "`lines[].n` was integer, and is string"),
        (required, "`way` is required, and was not"),
        (closed, "refuses members that it does not know, and did not"),
        (
            with("id", json!({ "anyOf": [{ "type": "string" }, { "type": "null" }] })),
            "`id` was integer, and is string",
        ),
    ] {
        assert_eq!(told(&before, &after), [what], "{after}");
    }
}

#[test]
fn receiver_is_told_what_it_may_miss_and_not_what_is_new() {
    let known = object(json!({ "id": { "type": "string" }, "way": { "enum": ["a"] } }), &["id"]);
    let sent = object(
        json!({ "id": { "type": "string" }, "way": { "enum": ["a", "b"] }, "more": { "type": "string" } }),
        &[],
    );
    let misfits = misfits(Schema::whole(&sent), Schema::whole(&known));
    let told: Vec<String> = misfits.iter().filter_map(Misfit::for_receiver).collect();
    assert_eq!(told, ["`id` may be missing, and was not", "`way` may be \"b\", which is new"]);
}

#[test]
fn references_are_followed_and_a_schema_may_contain_itself() {
    let tree = |kind: &str| {
        json!({ "$ref": "#/$defs/Node", "$defs": { "Node": { "type": "object", "properties": {
            "value": { "type": kind }, "next": { "anyOf": [{ "$ref": "#/$defs/Node" }, { "type": "null" }] },
        } } } })
    };
    assert_eq!(told(&tree("string"), &tree("string")), Vec::<String>::new());
    assert_eq!(told(&tree("string"), &tree("boolean")), ["`value` was string, and is boolean"]);
    let endless = json!({ "$ref": "#" });
    assert_eq!(told(&endless, &endless), Vec::<String>::new());
}

#[test]
fn what_is_put_together_of_several_schemas_is_compared_as_one() {
    let together = |kind: &str, required: &[&str]| {
        let more = object(json!({ "more": { "type": "string" } }), required);
        let base = object(json!({ "id": { "type": kind } }), &["id"]);
        json!({ "allOf": [{ "$ref": "#/$defs/Base" }, more], "$defs": { "Base": base } })
    };
    let before = together("integer", &[]);
    assert_eq!(told(&before, &together("string", &[])), ["`id` was integer, and is string"]);
    assert_eq!(told(&before, &together("integer", &["more"])), ["`more` is required, and was not"]);
    let flat = object(json!({ "id": { "type": "integer" }, "more": { "type": "string" } }), &["id"]);
    assert_eq!(told(&before, &flat), Vec::<String>::new());
    assert_eq!(told(&flat, &before), Vec::<String>::new());
    let endless = json!({ "allOf": [{ "$ref": "#" }, { "$ref": "#" }, { "type": "object" }] });
    assert_eq!(told(&endless, &flat).len(), 1, "it ends: `id` is required");
}

#[test]
fn values_of_maps_and_places_of_tuples_are_compared() {
    let map = |kind: &str| json!({ "type": "object", "additionalProperties": { "type": kind } });
    assert_eq!(told(&map("integer"), &map("string")), ["`*` was integer, and is string"]);
    let named = object(json!({ "a": { "type": "integer" } }), &[]);
    assert_eq!(told(&named, &map("string")), ["`a` was integer, and is string"]);
    let pair =
        |second: &str| json!({ "type": "array", "prefixItems": [{ "type": "string" }, { "type": second }] });
    assert_eq!(told(&pair("integer"), &pair("string")), ["`[1]` was integer, and is string"]);
}

#[test]
fn format_that_takes_less_is_told_and_one_that_takes_more_is_not() {
    let text = |format: &str| json!({ "type": "string", "format": format });
    let number = |format: &str| json!({ "type": "integer", "format": format });
    let free = json!({ "type": "string" });
    assert_eq!(told(&free, &text("uuid")), ["must be of the format uuid, and need not have been"]);
    assert_eq!(told(&text("date"), &text("date-time")).len(), 1);
    assert_eq!(told(&number("int64"), &number("int32")).len(), 1);
    let small = json!({ "type": "integer", "format": "int64", "maximum": 9 });
    for (sent, taken) in [
        (text("uuid"), free.clone()),
        (free, text("password")),
        (text("uuid"), text("uuid")),
        (number("int32"), number("int64")),
        (small, number("int8")),
    ] {
        assert_eq!(told(&sent, &taken), Vec::<String>::new(), "{sent} {taken}");
    }
}

#[test]
fn same_schema_written_in_another_way_breaks_nobody() {
    let few = json!({ "type": "string", "enum": ["a", "b"] });
    let listed =
        json!({ "oneOf": [{ "const": "a", "description": "A." }, { "type": "string", "enum": ["b"] }] });
    let perhaps = json!({ "type": ["string", "null"], "enum": ["a", "b", null] });
    let free = json!({ "type": ["string", "null"] });
    let alternatives = json!({ "anyOf": [{ "type": "string" }, { "type": "null" }] });
    let perhaps_listed = json!({ "anyOf": [listed, { "type": "null" }] });
    for (sent, taken) in [
        (&few, &listed),
        (&listed, &few),
        (&few, &perhaps),
        (&perhaps, &perhaps_listed),
        (&perhaps_listed, &perhaps),
        (&free, &alternatives),
        (&alternatives, &free),
        (&perhaps, &free),
    ] {
        assert_eq!(told(sent, taken), Vec::<String>::new(), "{sent} {taken}");
    }
    assert_eq!(told(&perhaps, &listed), ["is no longer null"]);
    assert_eq!(told(&free, &json!({ "anyOf": [{ "type": "string" }, { "type": "boolean" }] })).len(), 1);
}
