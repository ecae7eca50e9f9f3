//! Reading transcripts, comparing them with what happened, and writing them anew.

use crate::Happened;

/// A command and what is expected of it.
pub struct Step {
    pub line: usize,
    pub command: Vec<String>,
    pub expected: Vec<String>,
    pub code: i32,
}

/// A line for people, or a step.
pub enum Piece {
    Prose(String),
    Step(Step),
}

impl Piece {
    pub fn step(&self) -> Option<&Step> {
        match self {
            Self::Prose(_) => None,
            Self::Step(step) => Some(step),
        }
    }
}

pub struct Transcript {
    pub needs_mounts: bool,
    pub pieces: Vec<Piece>,
}

impl Transcript {
    pub fn parse(text: &str) -> Self {
        let mut pieces = Vec::new();
        let mut in_block = false;
        for (n, line) in text.lines().enumerate() {
            let command = line.strip_prefix("$ ").filter(|_| in_block);
            if line.starts_with("```") {
                in_block = line == "```console";
                pieces.push(Piece::Prose(line.to_owned()));
            } else if let Some(command) = command {
                let (command, expected) = (vec![command.to_owned()], Vec::new());
                pieces.push(Piece::Step(Step { line: n + 1, command, expected, code: 0 }));
            } else if let (true, Some(Piece::Step(step))) = (in_block, pieces.last_mut()) {
                step.take(line);
            } else {
                pieces.push(Piece::Prose(line.to_owned()));
            }
        }
        Self { needs_mounts: text.contains("<!-- needs mounts -->"), pieces }
    }

    /// The transcript with what happened in place of what was expected; lines that fit are kept as they are.
    pub fn blessed(&self, happened: &[Happened]) -> String {
        let mut happened = happened.iter();
        let mut text = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Prose(line) => text.push_str(&format!("{line}\n")),
                Piece::Step(step) => text.push_str(&step.blessed(happened.next().unwrap())),
            }
        }
        text
    }
}

impl Step {
    fn take(&mut self, line: &str) {
        if let (true, Some(more)) = (self.expected.is_empty(), line.strip_prefix("> ")) {
            self.command.push(more.to_owned());
        } else if let Some(code) = line.strip_prefix("? ").and_then(|code| code.parse().ok()) {
            self.code = code;
        } else {
            self.expected.push(line.to_owned());
        }
    }

    fn fits(&self, happened: &Happened) -> bool {
        let expected: Vec<&str> = self.expected.iter().map(String::as_str).collect();
        let lines: Vec<&str> = happened.lines.iter().map(String::as_str).collect();
        self.code == happened.code && lines_fit(&expected, &lines)
    }

    /// What differs, if anything does.
    pub fn complaint(&self, happened: &Happened) -> Option<String> {
        let Happened { lines, code } = happened;
        let (expected, command) = (self.expected.join("\n  "), &self.command[0]);
        (!self.fits(happened)).then(|| {
            let lines = lines.join("\n  ");
            format!(
                "line {}: $ {command}\n expected (exit {}):\n  {expected}\n happened (exit {code}):\n  {lines}",
                self.line, self.code
            )
        })
    }

    fn blessed(&self, happened: &Happened) -> String {
        let mut lines = vec![format!("$ {}", self.command[0])];
        lines.extend(self.command[1..].iter().map(|more| format!("> {more}")));
        let fits = self.fits(happened);
        if fits {
            lines.extend(self.expected.iter().cloned());
        } else {
            let known =
                |line: &str| self.expected.iter().find(|expected| *expected != "..." && line_fits(expected, line));
            lines
                .extend(happened.lines.iter().map(|line| known(line).cloned().unwrap_or_else(|| without_chance(line))));
        }
        if happened.code != 0 {
            lines.push(format!("? {}", happened.code));
        }
        lines.push(String::new());
        lines.join("\n")
    }
}

fn lines_fit(expected: &[&str], lines: &[&str]) -> bool {
    match (expected.split_first(), lines.split_first()) {
        (None, None) => true,
        (Some((&"...", rest)), _) => (0..=lines.len()).any(|skipped| lines_fit(rest, &lines[skipped..])),
        (Some((pattern, patterns)), Some((line, lines))) => line_fits(pattern, line) && lines_fit(patterns, lines),
        _ => false,
    }
}

fn line_fits(pattern: &str, line: &str) -> bool {
    match pattern.split_once("[..]") {
        None => pattern == line,
        Some((start, rest)) => line.strip_prefix(start).is_some_and(|line| {
            let ends = line.char_indices().map(|(at, _)| at).chain([line.len()]);
            ends.into_iter().any(|at| line_fits(rest, &line[at..]))
        }),
    }
}

/// The line with `[..]` for ids, times and what they change the size of.
fn without_chance(line: &str) -> String {
    for (before, after) in
        [(" in ", " s."), (" in ", " ms."), ("is complete: ", " stored"), ("is partial: ", " stored")]
    {
        let found = line.rfind(after).and_then(|end| Some((line[..end].rfind(before)? + before.len(), end)));
        if let Some((start, end)) = found.filter(|(start, end)| !line[*start..*end].contains("[..]")) {
            return without_chance(&format!("{}[..]{}", &line[..start], &line[end..]));
        }
    }
    let is_id = |word: &str| {
        word.len() >= 8 && word.bytes().all(|c| c.is_ascii_hexdigit()) && word.contains(|c: char| c.is_ascii_digit())
    };
    let is_time = |word: &str| {
        let clock = word.len() == 8 && word.bytes().filter(|c| *c == b':').count() == 2;
        clock || word.strip_suffix("ms").or(word.strip_suffix('s')).is_some_and(|number| number.parse::<f64>().is_ok())
    };
    let parts = line.split_inclusive([' ', '.', '"', '/', ',']).map(|part| {
        let word = part.trim_end_matches([' ', '.', '"', '/', ',']);
        if is_id(word) || is_time(word) { part.replacen(word, "[..]", 1) } else { part.to_owned() }
    });
    parts.collect()
}
