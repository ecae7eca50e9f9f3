//! `compline plan check|show|graph|schema`: looks at a plan without touching anything it names.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::observer::Problem;
use crate::plan::{Plan, PlannedComponent, json_schema};

/// What `plan check` found in a valid plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanCheck {
    /// Path of the plan.
    pub plan: String,
    /// Number of components.
    pub components: usize,
    /// What its author should know.
    pub problems: Vec<Problem>,
}

impl PlanCheck {
    /// One sentence for people, and one line for each problem.
    #[must_use]
    pub fn to_text(&self) -> String {
        let noun = if self.components == 1 { "component" } else { "components" };
        let mut lines = vec![format!("Plan {} is valid: {} {noun}", self.plan, self.components)];
        lines.extend(self.problems.iter().map(|problem| format!("Problem: {} {}", problem.subject, problem.message)));
        lines.join("\n") + "\n"
    }

    /// One object for programs.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({ "plan": self.plan, "components": self.components, "problems": self.problems })
    }
}

/// `plan check`: loading has proved it valid; what remains is what its author should know.
#[must_use]
pub fn check(plan: &Plan) -> PlanCheck {
    PlanCheck {
        plan: plan.path().display().to_string(),
        components: plan.components().len(),
        problems: plan.problems(),
    }
}

/// `plan show`: the effective plan, as a plan.
#[must_use]
pub fn show(plan: &Plan) -> String {
    plan.to_toml()
}

/// `plan show --json`.
#[must_use]
pub fn show_json(plan: &Plan) -> Value {
    plan.to_json()
}

/// `plan schema`: the JSON Schema of plans.
#[must_use]
pub fn schema() -> Value {
    json_schema()
}

/// `plan graph`: both orders, with the reasons.
#[must_use]
pub fn graph(plan: &Plan) -> String {
    let width = plan.components().iter().map(|component| component.name().len()).max().unwrap_or(0);
    let mut text = "Capture, one after the other:\n".to_owned();
    for (at, component) in plan.in_capture_order().enumerate() {
        text.push_str(&line(at + 1, width, component, &before_reason(component)));
    }
    text.push_str("\nRestore, each number after the one before it:\n");
    for (at, group) in plan.restore_groups().enumerate() {
        for component in group {
            text.push_str(&line(at + 1, width, component, &after_reason(component)));
        }
    }
    text
}

fn line(number: usize, width: usize, component: &PlannedComponent, reason: &str) -> String {
    let line = format!("{number:>4}  {:width$}  {:10}{reason}", component.name(), component.kind().name);
    line.trim_end().to_owned() + "\n"
}

fn before_reason(component: &PlannedComponent) -> String {
    match component.references() {
        [] => String::new(),
        names => format!("before {}, which it references", names.join(" and ")),
    }
}

fn after_reason(component: &PlannedComponent) -> String {
    let mut names: BTreeSet<&str> = component.references().iter().map(String::as_str).collect();
    names.extend(component.derived_from().iter().map(String::as_str));
    match names.into_iter().collect::<Vec<_>>().as_slice() {
        [] => String::new(),
        names => format!("after {}", names.join(" and ")),
    }
}

/// `plan graph --dot`: for Graphviz. Arrows go from a component to what must be restored before it.
#[must_use]
pub fn graph_dot(plan: &Plan) -> String {
    let mut lines = vec!["digraph plan {".to_owned(), "  rankdir = LR;".to_owned(), "  node [shape = box];".to_owned()];
    for component in plan.components() {
        let (name, kind) = (component.name(), component.kind().name);
        lines.push(format!("  \"{name}\" [label = \"{name}\\n{kind}, {}\"];", component.role()));
        lines.extend(component.references().iter().map(|other| arrow(name, other, "references", "solid")));
        lines.extend(component.derived_from().iter().map(|other| arrow(name, other, "derived from", "dashed")));
    }
    lines.push("}".to_owned());
    lines.join("\n") + "\n"
}

fn arrow(from: &str, to: &str, label: &str, style: &str) -> String {
    format!("  \"{from}\" -> \"{to}\" [label = \"{label}\", style = {style}];")
}

#[cfg(test)]
mod tests;
