//! Every kind of object that probe prints as JSON, records, or sends between agent and client.

use crate::Listed;

crate::names! {
    /// A kind of object. Its name is the one that `probe schema` takes: several have the same `event`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum JsonEvent {
        Connection = "connection",
        WatchSummary = "watch-summary",
        EtcdLog = "etcd-log",
        EtcdLogSummary = "etcd-log-summary",
        Who = "who",
        WhoUnmatched = "who-unmatched",
        Recording = "recording",
        Vxlan = "vxlan",
        Bypass = "bypass",
        Path = "path",
        PathSummary = "path-summary",
        Doctor = "doctor",
        DoctorEnd = "doctor-end",
        Check = "check",
        Finding = "finding",
        HistoryEnd = "history-end",
        Alive = "alive",
        Gap = "gap",
        AgentStatus = "agent-status",
    }
}

impl JsonEvent {
    /// The values that its field `event` may have; none, if it has no such field.
    pub const fn values(self) -> &'static [&'static str] {
        match self {
            Self::Connection => &["connection"],
            Self::WatchSummary | Self::EtcdLogSummary | Self::PathSummary => &["summary"],
            Self::EtcdLog => &["etcd-log", "server-log"],
            Self::Who | Self::WhoUnmatched => &["who"],
            Self::Recording => &["recording"],
            Self::Vxlan => &["vxlan", "summary"],
            Self::Bypass => &["bypass", "summary"],
            Self::Path => &["path"],
            Self::Doctor => &["doctor"],
            Self::DoctorEnd | Self::HistoryEnd => &["end"],
            Self::Check => &["check"],
            Self::Finding => &["finding"],
            Self::Alive => &["alive"],
            Self::Gap => &["gap"],
            Self::AgentStatus => &[],
        }
    }

    const fn of(self) -> &'static str {
        match self {
            Self::Connection => "one endpoint of a connection: watch, recordings, the agent",
            Self::WatchSummary => "the last line of watch",
            Self::EtcdLog => "a rejected connection in a log of etcd or of another server",
            Self::EtcdLogSummary => "the last line of etcd-log",
            Self::Who => "a connection that an address had",
            Self::WhoUnmatched => "an address that no recorded connection had",
            Self::Recording => "the first line of a recording: what it was filtered by",
            Self::Vxlan => "a snapshot of vxlan; the last one too",
            Self::Bypass => "a snapshot of bypass; the last one too",
            Self::Path => "a request, its answer and their way",
            Self::PathSummary => "the last line of path",
            Self::Doctor => "a check of doctor",
            Self::DoctorEnd => "the last line of the agent's checks",
            Self::Check => "what check prints",
            Self::Finding => "a finding that begins or ends, from the agent",
            Self::HistoryEnd => "the last line of the agent's connections",
            Self::Alive => "a sign of life between the agent's connections",
            Self::Gap => "connections that a slow reader of the agent lost",
            Self::AgentStatus => "the state of an agent: GET /v1/node",
        }
    }
}

impl Listed for JsonEvent {
    const ALL: &'static [Self] = &Self::ALL;

    fn name(self) -> &'static str {
        self.name()
    }

    fn description(self) -> &'static str {
        self.of()
    }
}
