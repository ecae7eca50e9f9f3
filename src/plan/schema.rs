//! The JSON Schema of plans (draft 2020-12), made of the same tables that check them: for editors that complete and
//! underline while a plan is written.

use serde_json::{Map, Value, json};

use super::fields;
use crate::components::{KINDS, Kind};
use crate::settings::{Field, Shape};
use crate::units;

/// The JSON Schema of plans that this program reads.
#[must_use]
pub fn json_schema() -> Value {
    let mut schema = table(fields::PLAN);
    schema.insert("$schema".into(), "https://json-schema.org/draft/2020-12/schema".into());
    schema.insert("title".into(), "compline plan".into());
    schema.insert("$defs".into(), definitions());
    set(&mut schema, "format", json!({ "const": super::PLAN_FORMAT, "description": doc_of(fields::PLAN, "format") }));
    set(&mut schema, "component", components());
    schema.into()
}

fn set(schema: &mut Map<String, Value>, key: &str, value: Value) {
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        properties.insert(key.to_owned(), value);
    }
}

fn doc_of(fields: &[Field], name: &str) -> &'static str {
    fields.iter().find(|field| field.name == name).map_or("", |field| field.doc)
}

fn definitions() -> Value {
    let argv = json!({ "type": "array", "items": { "type": "string" }, "minItems": 1 });
    let one = |key: &str, value: Value| json!({ "type": "object", "properties": { key: value }, "required": [key], "additionalProperties": false });
    let text = || json!({ "type": "string", "minLength": 1 });
    json!({
        "duration": { "type": "string", "pattern": units::DURATION_PATTERN },
        "span": { "type": "string", "pattern": units::SPAN_PATTERN },
        "size": { "type": "string", "pattern": units::SIZE_PATTERN },
        "argv": argv,
        "secret": {
            "oneOf": [one("file", text()), one("env", text()), one("command", argv), one("systemd", text())],
        },
    })
}

/// Common keys and the kind's own stand together in one table for each kind, so that editors know which belong.
fn components() -> Value {
    let names: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
    let cases: Vec<Value> = KINDS.iter().map(case).collect();
    json!({
        "description": doc_of(fields::PLAN, "component"),
        "type": "array",
        "minItems": 1,
        "items": {
            "type": "object",
            "required": ["name", "kind"],
            "properties": { "kind": { "enum": names } },
            "allOf": cases,
        },
    })
}

fn case(kind: &Kind) -> Value {
    let common = fields::COMPONENT.iter().filter(|field| kind.fields.iter().all(|own| own.name != field.name));
    let all: Vec<Field> = common.chain(kind.fields).copied().collect();
    let mut then = table(&all);
    then.insert("description".into(), kind.doc.into());
    set(&mut then, "kind", json!({ "const": kind.name, "description": kind.doc }));
    set(&mut then, "name", json!({ "type": "string", "pattern": "^[a-z0-9][a-z0-9-]{0,62}$" }));
    set(&mut then, "enabled", enabled());
    json!({ "if": { "properties": { "kind": { "const": kind.name } } }, "then": then })
}

fn enabled() -> Value {
    json!({ "description": doc_of(fields::COMPONENT, "enabled"), "oneOf": [{ "type": "boolean" }, table(fields::ENABLED)] })
}

fn table(fields: &[Field]) -> Map<String, Value> {
    let required: Vec<&str> = fields.iter().filter(|field| field.required).map(|field| field.name).collect();
    let properties: Map<String, Value> = fields.iter().map(|field| (field.name.to_owned(), property(field))).collect();
    let mut schema = Map::new();
    schema.insert("type".into(), "object".into());
    schema.insert("properties".into(), properties.into());
    schema.insert("required".into(), required.into());
    schema.insert("additionalProperties".into(), false.into());
    schema
}

fn property(field: &Field) -> Value {
    let mut schema = shape(&field.shape);
    schema.insert("description".into(), field.doc.into());
    schema.into()
}

fn shape(shape: &Shape) -> Map<String, Value> {
    let value = match shape {
        Shape::Text => json!({ "type": "string" }),
        Shape::Integer => json!({ "type": "integer" }),
        Shape::Boolean => json!({ "type": "boolean" }),
        Shape::Duration => json!({ "$ref": "#/$defs/duration" }),
        Shape::Span => json!({ "$ref": "#/$defs/span" }),
        Shape::Size => json!({ "$ref": "#/$defs/size" }),
        Shape::Secret => json!({ "$ref": "#/$defs/secret" }),
        Shape::Argv => json!({ "$ref": "#/$defs/argv" }),
        Shape::ArgvList => json!({ "type": "array", "items": { "$ref": "#/$defs/argv" } }),
        Shape::TextList => json!({ "type": "array", "items": { "type": "string" } }),
        Shape::TextOrList => json!({ "type": ["string", "array"], "items": { "type": "string" } }),
        Shape::OneOf(words) => json!({ "enum": words }),
        Shape::Table(fields) => return table(fields),
        Shape::TableList(fields) => json!({ "type": "array", "items": table(fields) }),
        Shape::AnyTables => json!({ "type": "array", "items": { "type": "object" } }),
        Shape::Any => json!({}),
    };
    match value {
        Value::Object(schema) => schema,
        _ => Map::new(),
    }
}
