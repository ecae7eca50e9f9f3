//! The effective plan: what was written, with the defaults that apply. As a plan again, or as JSON.

use serde_json::{Map, Value, json};

use super::{OnError, Plan, PlannedComponent, fields};
use crate::components::Existing;
use crate::settings::Settings;

/// What is said of a repository beside where it lies.
const BESIDE_LOCATION: &[&str] =
    &["password", "key_file", "limit_upload", "limit_download", "limit_requests", "concurrency"];

/// One section of a plan.
struct Section {
    /// Key at the top level; empty for the top level itself.
    name: &'static str,
    /// Whether there can be several.
    repeated: bool,
    rows: Vec<(String, Value)>,
}

impl Plan {
    /// The effective plan as TOML. Reading it again gives the same plan.
    #[must_use]
    pub fn to_toml(&self) -> String {
        self.sections().iter().map(Section::to_toml).collect::<Vec<_>>().join("\n")
    }

    /// The effective plan as JSON, with both orders.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut plan = Map::new();
        for section in self.sections() {
            let rows: Map<String, Value> = section.rows.into_iter().collect();
            match (section.name, section.repeated) {
                ("", _) => plan.extend(rows),
                (name, false) => drop(plan.insert(name.to_owned(), rows.into())),
                (name, true) => {
                    let list = plan.entry(name.to_owned()).or_insert_with(|| json!([]));
                    if let Value::Array(list) = list {
                        list.push(rows.into());
                    }
                }
            }
        }
        let capture: Vec<&str> = self.in_capture_order().map(PlannedComponent::name).collect();
        plan.insert("capture_order".into(), capture.into());
        plan.insert("restore_order".into(), self.restore_order().into());
        plan.into()
    }

    fn sections(&self) -> Vec<Section> {
        let mut sections = vec![section("", vec![row("format", super::PLAN_FORMAT)]), self.platform_section()];
        sections.extend(self.repository_section());
        sections.push(self.defaults_section());
        sections.extend(self.components.iter().map(|component| Section {
            name: "component",
            repeated: true,
            rows: component_rows(component),
        }));
        sections.extend(self.retention_section());
        sections.extend(self.copy_sections());
        sections
    }

    fn platform_section(&self) -> Section {
        let platform = &self.platform;
        let mut rows = vec![row("name", &*platform.name)];
        if !platform.description.is_empty() {
            rows.push(row("description", &*platform.description));
        }
        rows.push(row("timezone", &*platform.timezone));
        section("platform", rows)
    }

    fn repository_section(&self) -> Option<Section> {
        let repository = self.repository.as_ref()?;
        let mut rows = vec![row("location", repository.location.to_string())];
        rows.extend(written(&self.settings.table("repository")?, BESIDE_LOCATION));
        Some(section("repository", rows))
    }

    fn copy_sections(&self) -> Vec<Section> {
        let one = |(copy, settings): (&super::PlannedCopy, &Settings)| {
            let mut rows = vec![row("location", copy.repository.location.to_string())];
            rows.extend(written(settings, BESIDE_LOCATION));
            rows.extend(written(settings, &["tags"]));
            Section { name: "copy", repeated: true, rows }
        };
        self.copies.iter().zip(&self.settings.tables("copy")).map(one).collect()
    }

    fn defaults_section(&self) -> Section {
        let on_error = if self.on_error == OnError::Stop { "stop" } else { "continue" };
        let mut rows = vec![row("on_error", on_error)];
        if let Some(defaults) = self.settings.table("defaults") {
            rows.extend(written(&defaults, &defaults.keys()).filter(|(key, _)| key != "on_error"));
        }
        section("defaults", rows)
    }

    fn retention_section(&self) -> Option<Section> {
        let retention = self.retention.as_ref()?;
        let mut rows: Vec<_> = written(&self.settings.table("retention")?, &["keep", "keep_tags"]).collect();
        rows.push(row("only_complete", retention.policy.only_complete));
        rows.push(row("group_by", retention.group_by.words()));
        Some(section("retention", rows))
    }
}

fn section(name: &'static str, rows: Vec<(String, Value)>) -> Section {
    Section { name, repeated: false, rows }
}

fn row(key: &str, value: impl Into<Value>) -> (String, Value) {
    (key.to_owned(), value.into())
}

/// Those of `keys` that are set, as written.
fn written(settings: &Settings, keys: &[&str]) -> impl Iterator<Item = (String, Value)> {
    let mut values = settings.to_json();
    let rows: Vec<_> = keys.iter().filter_map(|key| values.remove(*key).map(|value| row(key, value))).collect();
    rows.into_iter()
}

/// Every key in the order of the tables that document them, with what holds where nothing was written.
fn component_rows(component: &PlannedComponent) -> Vec<(String, Value)> {
    let own = component.kind().fields;
    let mut values = component.settings().to_json();
    let mut default = |key: &str, value: Value| {
        values.entry(key).or_insert(value);
    };
    default("role", component.role().to_string().into());
    default("importance", json!(component.importance()));
    default("chunker", component.chunker().into());
    default("reflate", component.reflate().to_string().into());
    if own.iter().all(|field| field.name != "restore") {
        default("restore", json!({ "existing": existing_word(component.existing()) }));
    }
    let common = fields::COMPONENT.iter().filter(|field| own.iter().all(|other| other.name != field.name));
    common.chain(own).filter_map(|field| values.remove(field.name).map(|value| row(field.name, value))).collect()
}

fn existing_word(existing: Existing) -> &'static str {
    match existing {
        Existing::Fail => "fail",
        Existing::Skip => "skip",
        Existing::Update => "update",
        Existing::Replace => "replace",
    }
}

impl Section {
    fn to_toml(&self) -> String {
        let header = match (self.name, self.repeated) {
            ("", _) => String::new(),
            (name, false) => format!("[{name}]\n"),
            (name, true) => format!("[[{name}]]\n"),
        };
        let rows: Vec<String> =
            self.rows.iter().map(|(key, value)| format!("{} = {}\n", toml_key(key), toml_value(value))).collect();
        header + &rows.concat()
    }
}

fn toml_key(key: &str) -> String {
    let bare = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if bare { key.to_owned() } else { toml_text(key) }
}

fn toml_value(value: &Value) -> String {
    match value {
        Value::String(text) => toml_text(text),
        Value::Array(list) => format!("[{}]", list.iter().map(toml_value).collect::<Vec<_>>().join(", ")),
        Value::Object(table) => {
            let rows = table.iter().map(|(key, value)| format!("{} = {}", toml_key(key), toml_value(value)));
            format!("{{ {} }}", rows.collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

fn toml_text(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}
