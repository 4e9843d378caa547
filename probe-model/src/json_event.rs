//! Every kind of object that probe prints as JSON, records, or sends between agent and client.

crate::names! {
    /// A kind of object. Its name is the one that `probe schema` takes: several have the same `event`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum JsonEvent {
        Connection = "connection" => "one endpoint of a connection: watch, recordings, the agent",
        WatchSummary = "watch-summary" => "the last line of watch",
        EtcdLog = "etcd-log" => "a rejected connection in a log of etcd or of another server",
        EtcdLogSummary = "etcd-log-summary" => "the last line of etcd-log",
        Who = "who" => "a connection of a queried address",
        WhoUnmatched = "who-unmatched" => "a queried address without a recorded connection",
        Recording = "recording" => "the first line of a recording: its filters",
        Unlisted = "unlisted" => "a time of a recording without a record of each connection",
        Vxlan = "vxlan" => "a snapshot of vxlan; the last one too",
        Bypass = "bypass" => "a snapshot of bypass; the last one too",
        Path = "path" => "a request, its answer and their hops",
        PathSummary = "path-summary" => "the last line of path",
        Doctor = "doctor" => "a check of doctor",
        DoctorEnd = "doctor-end" => "the last line of the agent's checks",
        Check = "check" => "the hooks and programs that this kernel supports",
        Finding = "finding" => "a finding that begins or ends, from the agent",
        HistoryEnd = "history-end" => "the last line of the agent's connections",
        Alive = "alive" => "a keep-alive between the agent's connections",
        Gap = "gap" => "the number of connections that a slow reader of the agent lost",
        AgentStatus = "agent-status" => "the state of an agent: GET /v1/node",
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
            Self::Unlisted => &["unlisted"],
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
}
