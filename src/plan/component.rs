//! One component of the plan: the keys that every kind has, and the component its kind built from the rest.

use std::fmt;

use super::fields;
use super::order::{Fault, Link};
use crate::components::process::{Chain, Limits, Program};
use crate::components::{self, Component, Existing, KINDS, Kind};
use crate::error::{Error, ErrorKind, Result};
use crate::observer::Context;
use crate::reflate::Policy;
use crate::settings::{Settings, did_you_mean, listing};

/// Longest name of a component.
const NAME_LEN_MAX: usize = 63;

/// Kinds of the design that are not in this program yet; to say so is kinder than "unknown".
const KINDS_TO_COME: &[&str] = &[
    "alertmanager",
    "certs",
    "container",
    "elasticsearch",
    "etcd",
    "external",
    "gluster-brick",
    "grafana",
    "haproxy",
    "kafka",
    "kibana",
    "kubeadm",
    "kubernetes",
    "mariadb",
    "mysql",
    "opensearch",
    "prometheus",
    "rabbitmq",
    "redis",
    "registry",
    "s3",
    "xfsdump",
    "zookeeper",
];

/// What a component's state is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// It is the source of truth.
    Source,
    /// It is made from others.
    Derived,
    /// It may be lost: captured, but restored only when asked for by name.
    Ephemeral,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Source => "source",
            Self::Derived => "derived",
            Self::Ephemeral => "ephemeral",
        })
    }
}

/// How bad its failure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Importance {
    /// With `on_error = "stop"` its failure stops those after it.
    Required,
    /// Its failure stops nothing.
    BestEffort,
}

/// Whether the component is taken part in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Enabled {
    /// Always.
    Yes,
    /// Never.
    No,
    /// Where this command exits 0.
    If(Vec<String>),
}

/// What it means that the command of `enabled` failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenMissing {
    /// The component is skipped.
    Skip,
    /// The component has failed.
    Fail,
}

/// Whether a component is there to be captured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Presence {
    /// It is.
    Here,
    /// It isn't and need not be, for this reason.
    Skipped(String),
}

/// One component of a plan, built.
pub struct PlannedComponent {
    name: String,
    kind: &'static Kind,
    role: Role,
    importance: Importance,
    references: Vec<String>,
    derived_from: Vec<String>,
    resync: Vec<Vec<String>>,
    rebuild: Vec<Vec<String>>,
    enabled: Enabled,
    when_missing: WhenMissing,
    chunker: String,
    reflate: Policy,
    existing: Existing,
    settings: Settings,
    component: Box<dyn Component>,
}

impl PlannedComponent {
    /// Its name: the first part of every path of it in a snapshot.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> &'static Kind {
        self.kind
    }

    /// What its state is worth.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// How bad its failure is.
    #[must_use]
    pub fn importance(&self) -> Importance {
        self.importance
    }

    /// Components that it refers to.
    #[must_use]
    pub fn references(&self) -> &[String] {
        &self.references
    }

    /// Components that it is made from.
    #[must_use]
    pub fn derived_from(&self) -> &[String] {
        &self.derived_from
    }

    /// The commands that follow its restore: `rebuild`, then `resync`.
    #[must_use]
    pub fn after_restore(&self) -> Vec<&[String]> {
        self.rebuild.iter().chain(&self.resync).map(Vec::as_slice).collect()
    }

    /// Name of its chunker profile.
    #[must_use]
    pub fn chunker(&self) -> &str {
        &self.chunker
    }

    /// What is done about compressed data.
    #[must_use]
    pub fn reflate(&self) -> Policy {
        self.reflate
    }

    /// What a restore does with state that is in the way.
    #[must_use]
    pub fn existing(&self) -> Existing {
        self.existing
    }

    /// The component itself.
    #[must_use]
    pub fn component(&self) -> &dyn Component {
        &*self.component
    }

    /// Its table, with what it takes from `[defaults]`.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Finds out whether it is there to be captured; runs the command of `enabled`.
    ///
    /// # Errors
    /// When the command fails and `when_missing` is `fail`, or it can't be run.
    pub fn presence(&self, context: Context<'_>) -> Result<Presence> {
        let argv = match &self.enabled {
            Enabled::Yes => return Ok(Presence::Here),
            Enabled::No => return Ok(Presence::Skipped("not enabled in the plan".to_owned())),
            Enabled::If(argv) => argv,
        };
        match (self.run(context, argv), self.when_missing) {
            (Ok(()), _) => Ok(Presence::Here),
            (Err(error), _) if error.kind() == ErrorKind::Interrupted => Err(error),
            (Err(error), WhenMissing::Skip) => Ok(Presence::Skipped(format!("not on this machine: {}", error.chain()))),
            (Err(error), WhenMissing::Fail) => Err(error.context(format!("Component {} is not here", self.name))),
        }
    }

    /// Runs the commands of `rebuild` and `resync`, one after the other.
    ///
    /// # Errors
    /// When one can't be run or doesn't exit 0; those after it are not run.
    pub fn finish_restore(&self, context: Context<'_>) -> Result<()> {
        self.after_restore().into_iter().try_for_each(|argv| self.run(context, argv))
    }

    fn run(&self, context: Context<'_>, argv: &[String]) -> Result<()> {
        let limits = Limits { timeout: self.settings.duration("timeout"), stall_timeout: None };
        let program = Program::from_argv(argv.to_vec());
        let program = match self.settings.working_directory() {
            Some(directory) => program.directory(directory),
            None => program,
        };
        Chain::single(program, limits).output(context, &[]).map(drop)
    }

    /// Whether it is taken part in.
    #[must_use]
    pub fn enabled(&self) -> &Enabled {
        &self.enabled
    }

    pub(super) fn link(&self) -> Link<'_> {
        Link { name: &self.name, references: &self.references, derived_from: &self.derived_from }
    }
}

impl fmt::Debug for PlannedComponent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlannedComponent")
            .field("name", &self.name)
            .field("kind", &self.kind.name)
            .finish_non_exhaustive()
    }
}

/// Reads every `[[component]]` of a plan.
pub(super) fn read_all(plan: &Settings, defaults: Option<&Settings>) -> Result<Vec<PlannedComponent>> {
    let tables = plan.tables("component");
    if tables.is_empty() {
        return Err(plan.error("component", "must be one or more sections [[component]]"));
    }
    let mut components: Vec<PlannedComponent> = Vec::with_capacity(tables.len());
    for table in tables {
        let component = read(table, defaults)?;
        if components.iter().any(|other| other.name == component.name) {
            let error =
                component.settings.error("name", format!("is \"{}\", which another component has", component.name));
            return Err(error.hint("Names are paths in the snapshot; give each component its own"));
        }
        components.push(component);
    }
    Ok(components)
}

fn read(table: Settings, defaults: Option<&Settings>) -> Result<PlannedComponent> {
    let name = name_of(&table)?;
    let table = table.labelled(format!("component \"{name}\""));
    let kind = kind_of(&table)?;
    table.check_all(&[kind.fields, fields::COMPONENT])?;
    let settings = match defaults {
        Some(defaults) => table.inherit(defaults, &inherited(kind)),
        None => table,
    };
    let component = PlannedComponent {
        role: role(&settings, kind),
        importance: importance(&settings),
        references: settings.text_list("references"),
        derived_from: settings.text_list("derived_from"),
        resync: settings.argv_list("resync"),
        rebuild: settings.argv_list("rebuild"),
        enabled: enabled(&settings)?,
        when_missing: when_missing(&settings),
        chunker: settings.text("chunker").unwrap_or_else(|| fields::CHUNKERS[0].to_owned()),
        reflate: settings.text("reflate").and_then(|word| word.parse().ok()).unwrap_or_default(),
        existing: existing(&settings),
        component: (kind.build)(&settings)?,
        settings,
        name,
        kind,
    };
    check_role(&component)?;
    Ok(component)
}

/// The keys that a component of `kind` takes from `[defaults]`.
fn inherited(kind: &Kind) -> Vec<&'static str> {
    kind.fields.iter().chain(fields::COMPONENT).map(|field| field.name).collect()
}

fn name_of(table: &Settings) -> Result<String> {
    if !table.has("name") {
        return Err(table
            .error_here("\"name\" is missing in a [[component]]")
            .hint("Give it a name, such as \"database\""));
    }
    let name = table.text("name").unwrap_or_default();
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let valid = name.starts_with(good) && name.len() <= NAME_LEN_MAX && name.chars().all(|c| good(c) || c == '-');
    if valid {
        return Ok(name);
    }
    let error = table.error("name", "is not a name for a component");
    Err(error.hint("Names are made of a-z, 0-9 and -, begin with a letter or digit, and have at most 63 of them"))
}

fn kind_of(table: &Settings) -> Result<&'static Kind> {
    let Some(name) = table.text("kind") else {
        let message = if table.has("kind") { "must be a text" } else { "is missing" };
        return Err(table.error("kind", message).hint(kinds_hint()));
    };
    components::kind(&name).ok_or_else(|| {
        let names: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
        let message = if KINDS_TO_COME.contains(&name.as_str()) {
            format!("is \"{name}\", which this version of compline does not have yet")
        } else {
            format!("is \"{name}\", which nobody knows{}", did_you_mean(&name, &names))
        };
        table.error("kind", message).hint(kinds_hint())
    })
}

fn kinds_hint() -> String {
    let names: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
    format!("Kinds: {}; `command` can run any dump program", listing(&names))
}

fn role(settings: &Settings, kind: &Kind) -> Role {
    match settings.text("role").as_deref() {
        Some("source") => Role::Source,
        Some("derived") => Role::Derived,
        Some("ephemeral") => Role::Ephemeral,
        _ if settings.has("derived_from") => Role::Derived,
        _ if kind.name == "none" => Role::Ephemeral,
        _ => Role::Source,
    }
}

/// Roles that contradict what else is said.
fn check_role(component: &PlannedComponent) -> Result<()> {
    let PlannedComponent { role, kind, settings, derived_from, .. } = component;
    let (sources, commands) = (!derived_from.is_empty(), !component.after_restore().is_empty());
    let fault = match role {
        Role::Derived if !sources => Some(("role", "is \"derived\", but \"derived_from\" names no component")),
        Role::Source if sources => Some(("role", "is \"source\", but \"derived_from\" says what it is made from")),
        Role::Source if kind.name == "none" => Some(("role", "is \"source\", but kind none stores nothing")),
        _ if sources && !commands && kind.name != "none" => {
            Some(("derived_from", "needs \"resync\" or \"rebuild\": commands that bring it up to date after a restore"))
        }
        _ => None,
    };
    fault.map_or(Ok(()), |(key, message)| Err(settings.error(key, message)))
}

fn importance(settings: &Settings) -> Importance {
    match settings.text("importance").as_deref() {
        Some("best-effort") => Importance::BestEffort,
        _ => Importance::Required,
    }
}

fn enabled(settings: &Settings) -> Result<Enabled> {
    if let Some(enabled) = settings.boolean("enabled") {
        return Ok(if enabled { Enabled::Yes } else { Enabled::No });
    }
    let Some(table) = settings.table("enabled") else {
        return if settings.has("enabled") {
            Err(settings.error("enabled", "must be true, false or { command = [\"program\", \"argument\"] }"))
        } else {
            Ok(Enabled::Yes)
        };
    };
    table.check(fields::ENABLED)?;
    Ok(table.argv("command").map_or(Enabled::Yes, Enabled::If))
}

fn when_missing(settings: &Settings) -> WhenMissing {
    match settings.text("when_missing").as_deref() {
        Some("skip") => WhenMissing::Skip,
        _ => WhenMissing::Fail,
    }
}

fn existing(settings: &Settings) -> Existing {
    let word = settings.table("restore").and_then(|restore| restore.text("existing"));
    match word.as_deref() {
        Some("skip") => Existing::Skip,
        Some("update") => Existing::Update,
        Some("replace") => Existing::Replace,
        _ => Existing::Fail,
    }
}

/// The error for a plan without an order.
pub(super) fn refuse(components: &[PlannedComponent], fault: &Fault) -> Error {
    match fault {
        Fault::Unknown { from, key, name } => unknown_component(components, &components[*from], key, name),
        Fault::Cycle(ring) => cycle(&ring.iter().map(|place| &components[*place]).collect::<Vec<_>>()),
    }
}

fn unknown_component(components: &[PlannedComponent], from: &PlannedComponent, key: &str, name: &str) -> Error {
    let names: Vec<&str> = components.iter().map(PlannedComponent::name).collect();
    let message = format!("names \"{name}\", which is no component of this plan{}", did_you_mean(name, &names));
    from.settings.error(key, message).hint(format!("Components: {}", listing(&names)))
}

fn cycle(ring: &[&PlannedComponent]) -> Error {
    let steps = ring.iter().zip(ring.iter().cycle().skip(1)).map(|(one, other)| {
        let verb = if one.references.contains(&other.name) { "references" } else { "is derived from" };
        format!("{} {verb} {}", one.name, other.name)
    });
    let key = if ring[0].settings.has("references") { "references" } else { "derived_from" };
    let message = format!("closes a ring: {}", steps.collect::<Vec<_>>().join(", "));
    let hint = "Components that depend on each other have no order of restore; take one of these references out";
    ring[0].settings.error(key, message).hint(hint)
}
