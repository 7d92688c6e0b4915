package config

import "time"

// Config is the whole file. A file that is missing or empty means the defaults;
// keys not named keep theirs.
type Config struct {
	Server      Server      `toml:"server"`
	Limits      Limits      `toml:"limits"`
	Attestation Attestation `toml:"attestation"`
	Recovery    Recovery    `toml:"recovery"`
	Policy      Policy      `toml:"policy"`
	Rotation    Rotation    `toml:"rotation"`
	Audit       Audit       `toml:"audit"`
	Log         Log         `toml:"log"`
}

// Server says where the service keeps its things and what it listens to.
type Server struct {
	// The folder of everything that is kept: store, root key, operator socket.
	// It is made with mode 0700; a folder that others can enter is refused.
	Data string `toml:"data"`
	// The roots of trust by their URIs, such as "file:///etc/keywright/root.key" or
	// "awskms:///arn:aws:kms:…"; see docs/roots. Each wraps every keyring version,
	// any one opens it, and the first is asked first. Empty: the file root.key among
	// the credentials that systemd passes (LoadCredential), else root.key in the
	// data folder, which the first start makes. Keep a copy of that file apart from
	// the backups: a backup opens with a root, and with nothing else.
	Roots []string `toml:"roots"`
	// How long keys are held after a root opened them: boots go on as long without
	// any root. They are opened anew at half of it. At least one minute.
	Lease Duration `toml:"lease"`
	// The address that guests connect to: TLS 1.3 only.
	GuestListen string `toml:"guest_listen"`
	// The URL that guests are told to use. Empty: https://, the first of names,
	// and the port of guest_listen.
	GuestURL string `toml:"guest_url"`
	// The DNS names and addresses in the guest listener's certificate. Empty: the
	// host's name and its addresses. Guests do not rely on it: they verify the
	// service key's signature over each answer.
	Names []string `toml:"names"`
	// The unix socket that operators use. Empty: operator.sock in the data folder.
	// Only the service's own user and root are let in.
	OperatorSocket string `toml:"operator_socket"`
	// The address of /metrics, /healthz and /readyz. They tell nothing about
	// machines or keys, but keep them to your monitoring.
	MetricsListen string `toml:"metrics_listen"`
}

// Limits bound what guests can make the service hold. With the defaults it stays
// below 512 MiB whatever arrives.
type Limits struct {
	// Open guest connections. When there are too many, the one that has waited
	// longest without a request makes room.
	Connections int `toml:"connections"`
	// Open connections of one source: an IPv4 address, or the /64 of an IPv6 one.
	ConnectionsPerSource int `toml:"connections_per_source"`
	// Requests a second of one source, in the long run.
	RequestsPerSecond float64 `toml:"requests_per_second"`
	// Requests of one source at once. A boot takes two, an enrolment four.
	RequestsBurst int `toml:"requests_burst"`
	// Releases that are worked on at once. Boots have this lane to themselves.
	Releases int `toml:"releases"`
	// Enrolments that are worked on at once.
	Enrolments int `toml:"enrolments"`
	// Memory for the bodies of requests.
	BodyMemory Size `toml:"body_memory"`
	// How long the body of a request may take to arrive.
	BodyTimeout Duration `toml:"body_timeout"`
	// Addresses, or ranges such as "10.0.0.0/29", of balancers and gateways that
	// many machines share: the limits of one source do not apply to them.
	Balancers []string `toml:"balancers"`
}

// Attestation says what vouches for a TPM beside a person. With neither key, each
// machine's EK hash is compared by the operator who approves it.
type Attestation struct {
	// PEM files with certificates of the CAs whose EK certificates are trusted.
	// Whoever pins a software TPM's CA trusts everybody who can use that CA.
	EKRoots []string `toml:"ek_roots"`
	// A file with EK hashes, one in a line, as the hypervisor's administrator
	// lists them; # begins a comment.
	EKInventory string `toml:"ek_inventory"`
}

// Recovery says what becomes of recovery keys beside their being kept here.
type Recovery struct {
	// Recipients of age, such as "age1…" or, post-quantum, "age1pq1…"; all of one
	// kind, at most 16. Each recovery key that is made is encrypted to them as
	// well; keywright volume recovery-copies exports these copies, which open
	// volumes when there is no service. Keep the identities away from it.
	AgeRecipients []string `toml:"age_recipients"`
}

// Policy says which Cedar policies decide. No policy, no key.
type Policy struct {
	// Whether the policies that come with Keywright apply.
	Shipped bool `toml:"shipped"`
	// Files with further policies. A forbid in them overrules every permit.
	Files []string `toml:"files"`
}

// Rotation says how old keys may become, and whether the service carries out by itself
// what is due.
type Rotation struct {
	// A file with the policy of rotations, TOML as docs/rotation.md has it. Empty:
	// keyrings and volumes' secrets become at most a year old.
	Policy string `toml:"policy"`
	// A file that says why machines may be late, who answers for it and until when,
	// TOML as docs/rotation.md has it. It is read for each plan. Empty: none may.
	Excuses string `toml:"excuses"`
	// When the service carries out by itself what is due: a cron expression of five
	// fields, such as "*/10 * * * *". Off: never, and keywright rotate run --due does.
	Schedule string `toml:"schedule"`
	// The time zone of schedule, such as "Europe/Berlin".
	Zone string `toml:"zone"`
	// The most that a machine reencrypts of a volume in a second, on average, such as
	// "50MiB". It is told with each delivery: one that is under way goes on as it
	// was. "0": as fast as it goes.
	ReencryptRate Size `toml:"reencrypt_rate"`
}

// Audit names the audit log.
type Audit struct {
	// The log's origin: a name that no other log has, such as
	// keywright.example.org/audit. Empty: the first of the server's names and
	// /keywright/audit. It is part of every head and must not change afterwards.
	Origin string `toml:"origin"`
}

// Log says what the service writes about its work, to standard error as JSON.
// Neither secrets nor bodies of requests are in it.
type Log struct {
	// The least level that is written: debug, info, warn or error.
	Level string `toml:"level"`
}

// ScheduleOff is the schedule of a service that rotates nothing by itself.
const ScheduleOff = "off"

// Default returns the configuration without a file.
func Default() Config {
	return Config{
		Server: Server{
			Data: "./keywright-data", GuestListen: "0.0.0.0:8443", MetricsListen: "127.0.0.1:9443",
			Roots: []string{}, Lease: Duration(24 * time.Hour),
		},
		Limits: Limits{
			Connections: 1024, ConnectionsPerSource: 256, RequestsPerSecond: 50, RequestsBurst: 200,
			Releases: 128, Enrolments: 32, BodyMemory: 96 << 20,
			BodyTimeout: Duration(10 * time.Second),
		},
		Policy:   Policy{Shipped: true},
		Rotation: Rotation{Schedule: ScheduleOff, Zone: "UTC"},
		Log:      Log{Level: "info"},
	}
}
