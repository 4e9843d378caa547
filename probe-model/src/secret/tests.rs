use super::*;

fn hidden(arguments: &[&str]) -> Vec<String> {
    let mut arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    hide(&mut arguments);
    arguments
}

/// Of real programs, as their manuals have them.
#[test]
fn secrets_of_real_programs() {
    for (arguments, expected) in [
        (
            &["mysql", "-uroot", "-pS3cret", "db"][..],
            &["mysql", "-uroot", "-p***", "db"][..],
        ),
        (
            &["/usr/bin/mysqldump", "--password=S3cret,1", "db"],
            &["/usr/bin/mysqldump", "--password=***", "db"],
        ),
        (&["mysql", "-p", "db"], &["mysql", "-p", "db"]),
        (
            &["curl", "-u", "admin:S3cret", "https://h/"],
            &["curl", "-u", "admin:***", "https://h/"],
        ),
        (&["curl", "-uadmin:S3cret", "h"], &["curl", "-uadmin:***", "h"]),
        (
            &["curl", "--user", "admin:S3cret"],
            &["curl", "--user", "admin:***"],
        ),
        (
            &["curl", "-H", "Authorization: Bearer S3cret", "h"],
            &["curl", "-H", "Authorization: ***", "h"],
        ),
        (
            &["curl", "-H", "Accept: text/html", "h"],
            &["curl", "-H", "Accept: text/html", "h"],
        ),
        (
            &["curl", "-d", "user=a&password=S3cret&x=1", "h"],
            &["curl", "-d", "user=a&password=***&x=1", "h"],
        ),
        (
            &["curl", "-d", "{\"user\":\"a\",\"password\":\"S3 cret\"}"],
            &["curl", "-d", "{\"user\":\"a\",\"password\":\"***\"}"],
        ),
        (
            &["curl", "https://h/?token=S3cret"],
            &["curl", "https://h/?token=***"],
        ),
        (
            &["git", "clone", "https://me:S3cret@h/r.git"],
            &["git", "clone", "https://me:***@h/r.git"],
        ),
        (
            &["git", "clone", "https://ghp_0123456789abcdefghij@h/r.git"],
            &["git", "clone", "https://***@h/r.git"],
        ),
        (
            &["psql", "postgresql://u:S3cret@h:5432/d?sslmode=disable"],
            &["psql", "postgresql://u:***@h:5432/d?sslmode=disable"],
        ),
        (
            &["psql", "host=h user=u password=S3cret dbname=d"],
            &["psql", "host=h user=u password=*** dbname=d"],
        ),
        (
            &["env", "PGPASSWORD=S3cret", "psql"],
            &["env", "PGPASSWORD=***", "psql"],
        ),
        (
            &["env", "MYSQL_PWD=S3cret", "PWD=/root", "mysql"],
            &["env", "MYSQL_PWD=***", "PWD=/root", "mysql"],
        ),
        (
            &["sh", "-c", "mysql -uroot -pS3cret db < x"],
            &["sh", "-c", "mysql -uroot -p*** db < x"],
        ),
        (
            &["sh", "-c", "curl --password 'S3 cret' h"],
            &["sh", "-c", "curl --password *** h"],
        ),
        (
            &["sh", "-c", "curl -H \"Authorization: Bearer S3cret x\" h"],
            &["sh", "-c", "curl -H \"Authorization: ***\" h"],
        ),
        (
            &["sh", "-c", "while true; do sleep 1; done"],
            &["sh", "-c", "while true; do sleep 1; done"],
        ),
        (
            &["sudo", "sshpass", "-pS3cret", "ssh", "h"],
            &["sudo", "sshpass", "-p***", "ssh", "h"],
        ),
        (
            &["sshpass", "-p", "S3cret", "ssh", "h"],
            &["sshpass", "-p", "***", "ssh", "h"],
        ),
        (
            &["redis-cli", "-h", "h", "-a", "S3cret", "ping"],
            &["redis-cli", "-h", "h", "-a", "***", "ping"],
        ),
        (
            &["redis-server", "--requirepass", "S3cret"],
            &["redis-server", "--requirepass", "***"],
        ),
        (
            &["ldapsearch", "-D", "cn=a", "-w", "S3cret"],
            &["ldapsearch", "-D", "cn=a", "-w", "***"],
        ),
        (
            &["mongosh", "-u", "a", "-p", "S3cret"],
            &["mongosh", "-u", "a", "-p", "***"],
        ),
        (
            &["docker", "login", "-u", "a", "-p", "S3cret", "h"],
            &["docker", "login", "-u", "a", "-p", "***", "h"],
        ),
        (
            &["docker", "run", "-p", "80:80", "nginx"],
            &["docker", "run", "-p", "80:80", "nginx"],
        ),
        (
            &["docker", "run", "-e", "DB_PASS=S3cret", "x"],
            &["docker", "run", "-e", "DB_PASS=***", "x"],
        ),
        (
            &["docker", "run", "--env=API_KEY=S3cret", "x"],
            &["docker", "run", "--env=API_KEY=***", "x"],
        ),
        (
            &["docker", "login", "--password-stdin"],
            &["docker", "login", "--password-stdin"],
        ),
        (
            &["skopeo", "copy", "--src-creds", "a:S3cret"],
            &["skopeo", "copy", "--src-creds", "a:***"],
        ),
        (
            &["smbclient", "//h/s", "-U", "u%S3cret"],
            &["smbclient", "//h/s", "-U", "u%***"],
        ),
        (
            &["mount", "-t", "cifs", "-o", "username=u,password=S3cret,rw"],
            &["mount", "-t", "cifs", "-o", "username=u,password=***,rw"],
        ),
        (&["7z", "x", "-pS3cret", "a.7z"], &["7z", "x", "-p***", "a.7z"]),
        (&["zip", "-P", "S3cret", "a.zip"], &["zip", "-P", "***", "a.zip"]),
        (
            &["openssl", "rsa", "-passin", "pass:S3cret"],
            &["openssl", "rsa", "-passin", "pass:***"],
        ),
        (
            &["openssl", "enc", "-k", "S3cret"],
            &["openssl", "enc", "-k", "***"],
        ),
        (
            &["keytool", "-list", "-storepass", "S3cret"],
            &["keytool", "-list", "-storepass", "***"],
        ),
        (
            &["java", "-Djavax.net.ssl.keyStorePassword=S3cret", "-jar", "a"],
            &["java", "-Djavax.net.ssl.keyStorePassword=***", "-jar", "a"],
        ),
        (
            &["java", "-Dspring.datasource.url=jdbc:mysql://u:S3cret@h/d"],
            &["java", "-Dspring.datasource.url=jdbc:mysql://u:***@h/d"],
        ),
        (
            &["app", "u:S3cret@tcp(db:3306)/d"],
            &["app", "u:***@tcp(db:3306)/d"],
        ),
        (
            &["sqlcmd", "-U", "sa", "-P", "S3cret"],
            &["sqlcmd", "-U", "sa", "-P", "***"],
        ),
        (
            &["sqlplus", "scott/S3cret@//h/x"],
            &["sqlplus", "scott/***@//h/x"],
        ),
        (
            &["app", "Server=h;User Id=u;Password=S3cret;Encrypt=true"],
            &["app", "Server=h;User Id=u;Password=***;Encrypt=true"],
        ),
        (
            &["htpasswd", "-nb", "f", "u", "S3cret"],
            &["htpasswd", "-nb", "f", "u", "***"],
        ),
        (
            &["rabbitmqctl", "add_user", "u", "S3cret"],
            &["rabbitmqctl", "add_user", "u", "***"],
        ),
        (
            &["etcdctl", "--user", "root:S3cret", "get", "x"],
            &["etcdctl", "--user", "root:***", "get", "x"],
        ),
        (
            &["etcdctl", "--password", "S3cret", "get", "x"],
            &["etcdctl", "--password", "***", "get", "x"],
        ),
        (
            &["helm", "install", "--set", "auth.rootPassword=S3cret,x=1"],
            &["helm", "install", "--set", "auth.rootPassword=***"],
        ),
        (
            &[
                "kubectl",
                "create",
                "secret",
                "generic",
                "s",
                "--from-literal=a=S3cret",
            ],
            &[
                "kubectl",
                "create",
                "secret",
                "generic",
                "s",
                "--from-literal=***",
            ],
        ),
        (
            &["kubectl", "--token", "S3cret", "get", "pods"],
            &["kubectl", "--token", "***", "get", "pods"],
        ),
        (
            &[
                "kubeadm",
                "join",
                "--token",
                "abc.S3cret",
                "--discovery-token-ca-cert-hash",
                "sha256:1",
            ],
            &[
                "kubeadm",
                "join",
                "--token",
                "***",
                "--discovery-token-ca-cert-hash",
                "sha256:1",
            ],
        ),
        (
            &["vault", "login", "hvs.S3cret0123456789abc"],
            &["vault", "login", "***"],
        ),
        (
            &["app", "--aws-secret-access-key", "S3cret"],
            &["app", "--aws-secret-access-key", "***"],
        ),
        (
            &["app", "AWS_SECRET_ACCESS_KEY=S3cret"],
            &["app", "AWS_SECRET_ACCESS_KEY=***"],
        ),
        (
            &["app", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.S3cret0123456789"],
            &["app", "***"],
        ),
        (&["app", "--basic-auth=u:S3cret"], &["app", "--basic-auth=u:***"]),
        (
            &["snmpwalk", "-v2c", "-c", "S3cret", "h"],
            &["snmpwalk", "-v2c", "-c", "***", "h"],
        ),
        (
            &["nmcli", "wifi-sec.psk", "S3cret"],
            &["nmcli", "wifi-sec.psk", "S3cret"],
        ),
        (&["app", "--pass=$(DB_PASS)"], &["app", "--pass=$(DB_PASS)"]),
        (
            &["python3", "-c", "connect(password='S3cret')"],
            &["python3", "-c", "connect(password='***')"],
        ),
        (
            &["wget", "--http-password=S3cret", "h"],
            &["wget", "--http-password=***", "h"],
        ),
    ] {
        assert_eq!(hidden(arguments), expected);
    }
}

#[test]
fn what_stands_before_a_secret_may_be_one_too() {
    for (arguments, expected) in [
        (
            &["app", "postgres://u:S3cret@h/d?password=S3cret&x=1"][..],
            &["app", "postgres://u:***@h/d?password=***&x=1"][..],
        ),
        (
            &["app", "--url=https://u:S3cret@h/,token=S3cret"],
            &["app", "--url=https://u:***@h/,token=***"],
        ),
        (&["app", "-https://u:S3cret@h/"], &["app", "-https://u:***@h/"]),
        // A variable is one as a whole; a password may begin like it.
        (
            &["app", "--password=$ecret!", "--pass=$2y$10$S3cret"],
            &["app", "--password=***", "--pass=***"],
        ),
        (
            &["app", "--password=$PASS", "--pass=${PASS}", "--token=$(TOKEN)"],
            &["app", "--password=$PASS", "--pass=${PASS}", "--token=$(TOKEN)"],
        ),
    ] {
        assert_eq!(hidden(arguments), expected);
    }
}

/// What an operator has to see.
#[test]
fn what_is_no_secret_stays() {
    for arguments in [
        &[
            "etcd",
            "--name=a",
            "--initial-cluster=a=https://10.0.0.1:2380",
            "--key-file=/etc/k.pem",
            "--client-cert-auth=true",
        ][..],
        &[
            "kube-apiserver",
            "--service-account-key-file=/k",
            "--enable-bootstrap-token-auth=true",
            "--authorization-mode=RBAC",
            "--token-auth-file=/t",
        ],
        &[
            "kubelet",
            "--kubeconfig=/etc/k",
            "--rotate-certificates",
            "--pod-infra-container-image=p:3.2",
        ],
        &["flanneld", "--ip-masq", "--kube-subnet-mgr"],
        &[
            "python3.11",
            "/app/monitor.py",
            "--target",
            "etcd:2379",
            "--every",
            "60",
        ],
        &["nginx:", "worker", "process"],
        &["postgres:", "u", "d", "10.0.0.1(4242)", "idle"],
        &[
            "curl",
            "-k",
            "https://10.96.0.1:443/healthz",
            "--cacert",
            "/ca.pem",
        ],
        &["nc", "-z", "-w", "3", "10.0.0.1", "2379"],
        &["ssh", "-p", "22", "user@host", "uptime"],
        &["rsync", "-a", "user@host:/a/b", "/c"],
        &[
            "app",
            "--bypass=x",
            "--compass",
            "north",
            "--token-ttl=1h",
            "--password-file",
            "/run/p",
        ],
        &["app", "http://[::1]:8080/a@b", "--at=12:00:01"],
        &[
            "prometheus",
            "--web.enable-lifecycle",
            "--storage.tsdb.retention.time=15d",
        ],
        &["coredns", "-conf", "/etc/coredns/Corefile"],
        &["sleep", "infinity"],
    ] {
        assert_eq!(hidden(arguments), arguments);
    }
}

/// Whatever the arguments are, they are not more than they were, and none panics.
#[test]
fn any_arguments() {
    let mut random = crate::random::Numbers(7);
    let parts = [
        "-p",
        "--password",
        "=",
        ":",
        "\"",
        "'",
        " ",
        "://",
        "@",
        "é",
        "\u{202e}",
        "Authorization:",
        "mysql",
        "@tcp(",
        "pass:",
        "eyJ",
        "{",
        ",",
        "***",
        "S3cret",
    ];
    for _ in 0..20_000 {
        let arguments: Vec<String> = (0..random.below(5))
            .map(|_| (0..random.below(8)).map(|_| random.of(&parts)).collect())
            .collect();
        let mut hidden = arguments.clone();
        hide(&mut hidden);
        assert_eq!(hidden.len(), arguments.len());
        let mut again = hidden.clone();
        hide(&mut again);
        let longest = |arguments: &[String]| arguments.iter().map(String::len).sum::<usize>();
        assert!(
            longest(&again) <= longest(&hidden) + 6 * arguments.len(),
            "{arguments:?}: {hidden:?}: {again:?}"
        );
    }
}
