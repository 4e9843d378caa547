//! What stands below a command's options: examples, lists of names out of the types, exit codes.

use std::fmt::Write as _;

use crate::model::{Exit, Listed};

/// Sections with an empty line between them, the exit codes last.
pub fn sections(sections: &[&str]) -> String {
    let mut text: String = sections
        .iter()
        .map(|section| format!("{}\n\n", section.trim_end()))
        .collect();
    text.push_str("Exit codes:");
    for exit in Exit::ALL {
        // Writing to memory does not fail.
        let _ = write!(text, "\n  {}", exit.line());
    }
    text
}

/// A title, and a line for each name of a type.
pub fn list<T: Listed>(title: &str) -> String {
    let width = T::ALL.iter().map(|value| value.name().len()).max();
    let width = width.unwrap_or_default();
    let mut text = format!("{title}:");
    for value in T::ALL {
        let (name, description) = (value.name(), value.description());
        let _ = write!(text, "\n  {name:width$}  {description}");
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::{Command, CommandFactory as _};

    use super::*;
    use crate::{
        cli::Cli,
        model::{JsonEvent, Outcome, bypass, doctor::Check, path, vxlan},
    };

    fn commands() -> Vec<Command> {
        let mut cli = Cli::command();
        cli.build();
        let commands = cli
            .get_subcommands()
            .filter(|command| command.get_name() != "help");
        commands.cloned().collect()
    }

    fn help(name: &str) -> String {
        let mut commands = commands().into_iter();
        let mut command = commands.find(|command| command.get_name() == name).unwrap();
        command.render_long_help().to_string()
    }

    fn lists_all<T: Listed>(command: &str) {
        let help = help(command);
        for value in T::ALL {
            let listed = |line: &str| {
                let mut words = line.split_whitespace();
                words.next() == Some(value.name()) && line.trim_end().ends_with(value.description())
            };
            assert!(help.lines().any(listed), "{} in {help}", value.name());
        }
    }

    #[test]
    fn every_name_is_listed() {
        lists_all::<Outcome>("watch");
        lists_all::<path::Outcome>("path");
        lists_all::<vxlan::Fault>("vxlan");
        lists_all::<bypass::finding::Fault>("bypass");
        lists_all::<Check>("doctor");
        lists_all::<JsonEvent>("schema");
    }

    #[test]
    fn every_command_has_the_same_exit_codes() {
        let commands = commands();
        assert!(commands.len() > 10);
        for command in commands.iter().chain([&Cli::command()]) {
            let help = command.clone().render_long_help().to_string();
            let codes: Vec<_> = help
                .lines()
                .skip_while(|line| *line != "Exit codes:")
                .skip(1)
                .collect();
            let expected = Exit::ALL.map(|exit| format!("  {}", exit.line()));
            assert_eq!(codes, expected, "{}", command.get_name());
        }
    }

    /// Lines of examples are not folded, and paragraphs are folded once, by clap.
    #[test]
    fn examples_fit_a_line() {
        for command in commands() {
            let help = command
                .get_after_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            for line in help.lines().filter(|line| line.starts_with("  ")) {
                assert!(line.chars().count() <= 100, "{}: {line}", command.get_name());
            }
        }
    }

    /// A question word makes a reader look for the question.
    #[test]
    fn descriptions_begin_with_a_verb_or_a_noun() {
        let words = [
            "what", "who", "whom", "whose", "where", "how", "that", "which", "whether", "it", "so", "end",
        ];
        for command in commands().iter().chain([&Cli::command()]) {
            let options = command.get_arguments().filter(|option| !option.is_hide_set());
            let helps = options.map(|option| (option.get_id().to_string(), option.get_help()));
            for (name, text) in helps.chain([(String::new(), command.get_about())]) {
                let text = text.map(ToString::to_string).unwrap_or_default();
                let first = text.split(|letter: char| !letter.is_alphanumeric()).next();
                let first = first.unwrap_or_default().to_lowercase();
                let place = format!("{} {name}: {text:?}", command.get_name());
                assert!(!first.is_empty() && !words.contains(&first.as_str()), "{place}");
                assert!(!text.ends_with('.'), "{place}");
            }
        }
    }
}
