//! What is asked for, out of a request's query.

use jiff::Timestamp;

use crate::{
    model::{Outcome, Role, doctor::Check, etcd_log},
    recording::history::Filter,
};

/// A question about connections.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Asked {
    pub filter: Filter,
    pub follow: bool,
}

/// `since=…&port=2379,2380&role=client&outcome=half-open&address=…&follow=true`
pub fn connections(query: &str) -> Result<Asked, String> {
    let mut asked = Asked::default();
    for (name, value) in pairs(query) {
        let wrong = || format!("{name}={value:?} can't be read");
        let filter = &mut asked.filter;
        match &*name {
            "since" => filter.since = Some(value.parse::<Timestamp>().map_err(|_| wrong())?),
            "port" => {
                for port in value.split(',') {
                    filter.ports.push(port.parse().map_err(|_| wrong())?);
                }
            }
            "role" => {
                let role = Role::ALL.into_iter().find(|role| role.name() == value);
                filter.role = Some(role.ok_or_else(wrong)?);
            }
            "outcome" => {
                for name in value.split(',') {
                    let outcome = Outcome::ALL.into_iter().find(|outcome| outcome.name() == name);
                    filter.outcomes.push(outcome.ok_or_else(wrong)?);
                }
            }
            "address" => filter.address = Some(etcd_log::address(&value).ok_or_else(wrong)?),
            "follow" => asked.follow = value.parse().map_err(|_| wrong())?,
            _ => return Err(format!("unknown parameter {name:?}")),
        }
    }
    Ok(asked)
}

/// `output=json` or `output=table`; whether it is JSON.
pub fn output(query: &str) -> Result<bool, String> {
    let mut json = true;
    for (name, value) in pairs(query) {
        json = match (&*name, &*value) {
            ("output", "json") => true,
            ("output", "table") => false,
            _ => {
                return Err(format!(
                    "unknown {name}={value:?}; known: output=json, output=table"
                ));
            }
        };
    }
    Ok(json)
}

/// `check=bridge,dns`; none: all.
pub fn checks(query: &str) -> Result<Vec<Check>, String> {
    let mut checks = Vec::new();
    for (name, value) in pairs(query) {
        if name != "check" {
            return Err(format!("unknown parameter {name:?}"));
        }
        for asked in value.split(',') {
            let check = Check::from_name(asked);
            checks.push(check.ok_or_else(|| format!("unknown check={asked:?}"))?);
        }
    }
    let asked = |check: &Check| checks.is_empty() || checks.contains(check);
    Ok(Check::ALL.into_iter().filter(asked).collect())
}

/// Names and values, percent-decoded.
fn pairs(query: &str) -> impl Iterator<Item = (String, String)> {
    form_urlencoded::parse(query.as_bytes()).map(|(name, value)| (name.into_owned(), value.into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for() {
        assert_eq!(connections(""), Ok(Asked::default()));
        let asked = connections(
            "since=2026-11-23T09:10:14Z&port=2379,2380&port=443&role=client&outcome=half-open,refused\
             &address=%5Bfd00%3A%3A12%5D%3A62134&follow=true",
        )
        .unwrap();
        assert!(asked.follow);
        assert_eq!(asked.filter.ports, [2379, 2380, 443]);
        assert_eq!(asked.filter.role, Some(Role::Client));
        assert_eq!(asked.filter.outcomes, [Outcome::HalfOpen, Outcome::Refused]);
        assert_eq!(asked.filter.address, "[fd00::12]:62134".parse().ok());
        assert_eq!(asked.filter.since, "2026-11-23T09:10:14Z".parse().ok());
        assert_eq!(checks(""), Ok(Check::ALL.to_vec()));
        assert_eq!(
            checks("check=dns,bridge&check=dns"),
            Ok(vec![Check::Bridge, Check::Dns])
        );
        assert_eq!(output(""), Ok(true));
        assert_eq!(output("output=table"), Ok(false));
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (query, says) in [
            ("since=yesterday", "since=\"yesterday\" can't be read"),
            ("port=0x1", "port="),
            ("port=70000", "port="),
            ("role=both", "role="),
            ("outcome=half", "outcome="),
            ("address=etcd", "address="),
            ("follow=1", "follow="),
            ("colour=red", "unknown parameter \"colour\""),
            ("a%0Ab=c", "\"a\\nb\""),
        ] {
            let error = connections(query).unwrap_err();
            assert!(error.contains(says), "{query}: {error}");
        }
        assert!(output("output=yaml").is_err());
        for wrong in ["check=moon", "check=", "output=json"] {
            assert!(checks(wrong).is_err());
        }
    }
}
