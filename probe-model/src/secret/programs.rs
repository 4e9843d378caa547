//! Programs whose short options, or words at some place, are secrets.

use super::HIDDEN;

/// What is hidden of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    Whole,
    /// `user:password`, `user%password`, `user/password@host`: the user stays.
    UserAndPassword,
}

impl Value {
    /// With the secret hidden; `None`: it has none.
    pub fn hide(self, value: &str) -> Option<String> {
        if super::names::is_harmless(value) {
            return None;
        }
        match self {
            Self::Whole => Some(HIDDEN.to_owned()),
            Self::UserAndPassword => {
                let at = value.find([':', '%', '/'])?;
                let user = value.get(..=at)?;
                let host = match value.get(at..at + 1)? {
                    "/" => value
                        .rfind('@')
                        .and_then(|at| value.get(at..))
                        .unwrap_or_default(),
                    _ => "",
                };
                Some(format!("{user}{HIDDEN}{host}"))
            }
        }
    }
}

/// How an option has its value.
#[derive(Debug, Clone, Copy)]
enum How {
    /// `-pVALUE` only: `-p` alone asks for it.
    Attached,
    /// `-p VALUE` only.
    Separate,
    /// Both.
    Either,
}

/// What a program has.
#[derive(Debug)]
pub struct ProgramOptions {
    names: &'static [&'static str],
    /// Its rules hold only behind this word.
    pub subcommand: Option<&'static str>,
    options: &'static [(&'static str, How, Value)],
    /// The place of a word that is a secret, options not counted, from 1.
    positional: Option<usize>,
}

/// Where the secret is.
pub enum OptionFound {
    /// The next word.
    Next(Value),
    /// This one, with what is hidden.
    Here(Option<String>),
}

const fn program(
    names: &'static [&'static str],
    options: &'static [(&'static str, How, Value)],
) -> ProgramOptions {
    ProgramOptions {
        names,
        subcommand: None,
        options,
        positional: None,
    }
}

const PROGRAMS: &[ProgramOptions] = &[
    program(
        &[
            "mysql",
            "mysqldump",
            "mysqladmin",
            "mysqlimport",
            "mysqlcheck",
            "mysqlbinlog",
            "mysqlslap",
            "mysqlsh",
            "mariadb",
            "mariadb-dump",
            "mariadb-admin",
            "xtrabackup",
            "mariabackup",
        ],
        &[("-p", How::Attached, Value::Whole)],
    ),
    program(
        &["curl"],
        &[
            ("-u", How::Either, Value::UserAndPassword),
            ("--user", How::Separate, Value::UserAndPassword),
            ("-U", How::Either, Value::UserAndPassword),
            ("-b", How::Either, Value::Whole),
        ],
    ),
    program(&["etcdctl"], &[("--user", How::Separate, Value::UserAndPassword)]),
    program(&["sshpass"], &[("-p", How::Either, Value::Whole)]),
    program(
        &["redis-cli", "valkey-cli"],
        &[("-a", How::Separate, Value::Whole)],
    ),
    program(
        &[
            "ldapsearch",
            "ldapadd",
            "ldapmodify",
            "ldapdelete",
            "ldapwhoami",
            "ldappasswd",
            "ldapcompare",
        ],
        &[
            ("-w", How::Either, Value::Whole),
            ("-s", How::Separate, Value::Whole),
        ],
    ),
    program(
        &[
            "mongo",
            "mongosh",
            "mongodump",
            "mongorestore",
            "mongoexport",
            "mongoimport",
            "mongostat",
            "mongotop",
            "cqlsh",
            "nodetool",
        ],
        &[
            ("-p", How::Separate, Value::Whole),
            ("-pw", How::Separate, Value::Whole),
        ],
    ),
    ProgramOptions {
        names: &[
            "docker", "podman", "nerdctl", "buildah", "skopeo", "helm", "crane", "oras", "az", "oc", "argocd",
        ],
        subcommand: Some("login"),
        options: &[("-p", How::Either, Value::Whole)],
        positional: None,
    },
    program(
        &["smbclient", "rpcclient", "smbget", "net", "wmic"],
        &[("-U", How::Either, Value::UserAndPassword)],
    ),
    program(
        &["7z", "7za", "7zr", "rar", "unrar"],
        &[("-p", How::Attached, Value::Whole)],
    ),
    program(
        &["zip", "unzip", "zipcloak"],
        &[("-P", How::Either, Value::Whole)],
    ),
    program(
        &["openssl"],
        &[
            ("-k", How::Separate, Value::Whole),
            ("-K", How::Separate, Value::Whole),
        ],
    ),
    program(
        &["plink", "pscp", "psftp", "putty"],
        &[("-pw", How::Separate, Value::Whole)],
    ),
    program(
        &["sqlcmd", "bcp", "tsql", "osql", "isql"],
        &[("-P", How::Either, Value::Whole)],
    ),
    program(&["ipmitool"], &[("-P", How::Either, Value::Whole)]),
    program(
        &[
            "snmpget",
            "snmpwalk",
            "snmpbulkwalk",
            "snmpset",
            "snmptrap",
            "snmpgetnext",
        ],
        &[
            ("-c", How::Either, Value::Whole),
            ("-A", How::Either, Value::Whole),
            ("-X", How::Either, Value::Whole),
        ],
    ),
    program(
        &["xfreerdp", "wfreerdp", "rdesktop"],
        &[
            ("/p:", How::Attached, Value::Whole),
            ("-p", How::Either, Value::Whole),
        ],
    ),
    program(&["sqlplus", "expdp", "impdp", "rman", "sqlldr"], &[]).with(1),
    program(&["htpasswd"], &[]).with(3),
    ProgramOptions {
        subcommand: Some("add_user"),
        ..program(&["rabbitmqctl"], &[]).with(3)
    },
];

impl ProgramOptions {
    const fn with(self, place: usize) -> Self {
        Self {
            positional: Some(place),
            ..self
        }
    }

    /// The program that a word names, by a path or not.
    pub fn of(word: &str) -> Option<&'static Self> {
        let name = word.trim_start_matches(['"', '\'']).rsplit('/').next()?;
        PROGRAMS.iter().find(|program| program.names.contains(&name))
    }

    /// What a word is of it; `positional`: how many without a dash there were, with this one.
    pub fn option(&self, word: &str, positional: usize) -> Option<OptionFound> {
        if !word.starts_with('-') && self.positional == Some(positional) {
            let value = if word.contains('/') {
                Value::UserAndPassword
            } else {
                Value::Whole
            };
            // `sqlplus user@host` has none.
            let has_one = positional > 1 || word.contains('/');
            return has_one.then(|| OptionFound::Here(value.hide(word)));
        }
        self.options.iter().find_map(|(name, how, value)| {
            let rest = word.strip_prefix(name)?;
            match (how, rest.is_empty()) {
                (How::Separate | How::Either, true) => Some(OptionFound::Next(*value)),
                (How::Attached | How::Either, false) if !rest.starts_with('=') => {
                    let hidden = value.hide(rest)?;
                    Some(OptionFound::Here(Some(format!("{name}{hidden}"))))
                }
                (How::Attached, true) | (How::Separate | How::Attached | How::Either, false) => None,
            }
        })
    }
}
