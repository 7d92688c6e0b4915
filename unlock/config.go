package unlock

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/BurntSushi/toml"

	"keywright.dev/hsm/tpm"
	"keywright.dev/kms/exchange"
	"keywright.dev/unlock/luks"
)

const (
	// DefaultConfig is where the configuration stands, in the system and in its
	// initramfs.
	DefaultConfig = "/etc/keywright/unlock.toml"
	// DefaultDeadline is how long [Boot] tries.
	DefaultDeadline = 90 * time.Second

	maxConfig = 64 << 10
)

// Config is the guest's configuration; this struct is its manual. It holds
// nothing secret, and it is measured as part of the initramfs.
type Config struct {
	// Servers are the service's URLs, such as "https://keywright.example:8443".
	// All are asked at once; the first that answers is used.
	Servers []string `toml:"servers"`
	// ServiceKeys are the fingerprints of the service identity key as the
	// service prints them ("sha256:…"): the current one and, while it is being
	// replaced, the next.
	ServiceKeys []string `toml:"service_keys"`
	// Machine is the machine's id, which enroll writes: `boot` and `close` use no
	// other TPM. Empty: whichever answers.
	Machine string `toml:"machine,omitempty"`
	// EKTemplate is the endorsement key that the machine enrolled with. Empty:
	// the one that the TPM prefers.
	EKTemplate string `toml:"ek_template,omitempty"`
	// TPM is the device; empty: /dev/tpmrm0.
	TPM string `toml:"tpm,omitempty"`
	// EventLog is the firmware's event log; empty: where securityfs shows it.
	EventLog string `toml:"event_log,omitempty"`
	// Deadline ends a boot's trying, such as "90s" (the default); "0s" never
	// ends it.
	Deadline *Duration `toml:"deadline,omitempty"`
	// PromptAfter is when a boot asks for a passphrase beside its trying, where
	// it is told what to ask with: such as "30s" (the default), counted from its
	// start.
	PromptAfter *Duration `toml:"prompt_after,omitempty"`
	// Volumes are opened in this order, all or none.
	Volumes []VolumeConfig `toml:"volume,omitempty"`
}

// VolumeConfig is one volume to open.
type VolumeConfig struct {
	// Device is a path such as "/dev/vda2", or "UUID=" and the LUKS UUID.
	Device string `toml:"device"`
	// Name is the mapping's, below /dev/mapper.
	Name string `toml:"name"`
	// Root marks the volume that the root file system is on; at most one.
	Root bool `toml:"root,omitempty"`
	// Options are from crypttab: "discard" passes discards on, "read-only", and
	// "nofail" lets the machine boot without this volume.
	Options []string `toml:"options,omitempty"`
}

// Duration is a time span in the form of [time.ParseDuration].
type Duration time.Duration

// UnmarshalText implements [encoding.TextUnmarshaler].
func (d *Duration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	if err != nil || parsed < 0 {
		return fmt.Errorf("%.40q is not a time span such as 90s", text)
	}
	*d = Duration(parsed)
	return nil
}

// MarshalText implements [encoding.TextMarshaler].
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// LoadConfig reads and checks a configuration. The error of a missing file
// wraps fs.ErrNotExist.
func LoadConfig(path string) (*Config, error) {
	text, err := readBounded(path, maxConfig)
	if err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	c, err := ParseConfig(string(text))
	if err != nil {
		return nil, fmt.Errorf("reading the configuration %s: %w", path, err)
	}
	return c, nil
}

// ParseConfig parses and checks a configuration. Unknown keys are refused.
func ParseConfig(text string) (*Config, error) {
	var c Config
	meta, err := toml.Decode(text, &c)
	if err != nil {
		return nil, err
	}
	if unknown := meta.Undecoded(); len(unknown) > 0 {
		return nil, fmt.Errorf("there is no setting %q", unknown[0].String())
	}
	return &c, c.Check()
}

// Check says what is wrong with the configuration.
func (c *Config) Check() error {
	if len(c.Servers) == 0 || len(c.ServiceKeys) == 0 {
		return errors.New("servers and service_keys must name at least one each")
	}
	for _, server := range c.Servers {
		if u, err := url.Parse(server); err != nil || u.Scheme != "https" || u.Host == "" {
			return fmt.Errorf("server %.200q is not https://HOST:PORT", server)
		}
	}
	if _, err := c.Pins(); err != nil {
		return err
	}
	if c.EKTemplate != "" {
		if _, err := exchange.ParseEKTemplate(c.EKTemplate); err != nil {
			return fmt.Errorf("ek_template: %w", err)
		}
	}
	if c.Machine != "" && !machineForm.MatchString(c.Machine) {
		return fmt.Errorf("machine %.100q is not the 64 hexadecimal digits of an EK hash", c.Machine)
	}
	return checkVolumes(c.Volumes)
}

func checkVolumes(volumes []VolumeConfig) error {
	if len(volumes) > exchange.MaxVolumes {
		return fmt.Errorf("%d volumes, at most %d are allowed", len(volumes), exchange.MaxVolumes)
	}
	roots, names := 0, make(map[string]bool)
	for _, v := range volumes {
		if err := v.check(); err != nil {
			return err
		}
		if names[v.Name] {
			return fmt.Errorf("two volumes have the name %q", v.Name)
		}
		names[v.Name] = true
		if v.Root {
			roots++
		}
	}
	if roots > 1 {
		return fmt.Errorf("%d volumes are marked as root, at most one can be", roots)
	}
	return nil
}

var machineForm = regexp.MustCompile(`^[0-9a-f]{64}$`)

var uuidForm = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

func (v *VolumeConfig) check() error {
	uuid, byUUID := v.UUID()
	switch {
	case byUUID && !uuidForm.MatchString(uuid):
		return fmt.Errorf("volume %.100q: not a LUKS UUID in lower case", v.Device)
	case !byUUID && !strings.HasPrefix(v.Device, "/"):
		return fmt.Errorf("volume %.100q: device is neither an absolute path nor UUID=…", v.Device)
	case v.Name == "":
		return fmt.Errorf("volume %.100q has no name", v.Device)
	}
	if err := luks.CheckName(v.Name); err != nil {
		return fmt.Errorf("volume %.100q: %w", v.Device, err)
	}
	for _, option := range v.Options {
		if option != optionDiscard && option != optionReadOnly && option != optionNoFail {
			return fmt.Errorf("volume %.100q: option %.40q is not one of %q, %q, %q", v.Device, option, optionDiscard, optionReadOnly, optionNoFail)
		}
	}
	if v.Root && v.optional() {
		return fmt.Errorf("volume %.100q: the root cannot be %s: nothing boots without it", v.Device, optionNoFail)
	}
	return nil
}

const (
	optionDiscard  = "discard"
	optionReadOnly = "read-only"
	optionNoFail   = "nofail"
)

// optional tells whether a boot goes on without the volume.
func (v *VolumeConfig) optional() bool { return slices.Contains(v.Options, optionNoFail) }

// UUID returns the LUKS UUID, and whether the device is named by it.
func (v *VolumeConfig) UUID() (uuid string, ok bool) { return strings.CutPrefix(v.Device, "UUID=") }

// Pins returns the fingerprints of the service keys.
func (c *Config) Pins() ([][32]byte, error) {
	if len(c.ServiceKeys) > exchange.MaxServiceKeys {
		return nil, fmt.Errorf("service_keys: %d keys, at most %d are pinned", len(c.ServiceKeys), exchange.MaxServiceKeys)
	}
	pins := make([][32]byte, 0, len(c.ServiceKeys))
	for _, text := range c.ServiceKeys {
		pin, err := exchange.ParseFingerprint(text)
		if err != nil {
			return nil, fmt.Errorf("service_keys: %w", err)
		}
		pins = append(pins, pin)
	}
	return pins, nil
}

// TPMPath returns the path of the TPM device.
func (c *Config) TPMPath() string {
	if c.TPM == "" {
		return tpm.DefaultPath
	}
	return c.TPM
}

// EventLogPath returns the path of the firmware's event log.
func (c *Config) EventLogPath() string {
	if c.EventLog == "" {
		return tpm.DefaultEventLog
	}
	return c.EventLog
}

// Patience returns how long a boot tries; 0 means without end.
func (c *Config) Patience() time.Duration {
	if c.Deadline == nil {
		return DefaultDeadline
	}
	return time.Duration(*c.Deadline)
}

// PromptPatience returns how long a boot tries before it asks for a passphrase.
func (c *Config) PromptPatience() time.Duration {
	if c.PromptAfter == nil {
		return DefaultPromptAfter
	}
	return time.Duration(*c.PromptAfter)
}

// writtenBy is the first line of a configuration that this package wrote and
// may write again.
const writtenBy = "# Written by keywright-unlock enroll, which replaces it. Remove this line to keep your changes."

// ErrForeignConfig means that somebody else wrote the configuration.
var ErrForeignConfig = errors.New("it was not written by keywright-unlock enroll")

// Write writes the configuration so that after a power cut there is either the
// old or the new one. An existing file that enroll did not write stays as it is:
// that is [ErrForeignConfig].
func (c *Config) Write(path string) error {
	if err := writableConfig(path); err != nil {
		return err
	}
	var text strings.Builder
	fmt.Fprintln(&text, writtenBy)
	if err := toml.NewEncoder(&text).Encode(c); err != nil {
		return fmt.Errorf("writing the configuration: %w", err)
	}
	if err := writeDurably(path, []byte(text.String()), 0o644); err != nil {
		return fmt.Errorf("writing the configuration: %w", err)
	}
	return nil
}

// writableConfig tells why a configuration may not be written: somebody else wrote it.
func writableConfig(path string) error {
	old, err := readBounded(path, maxConfig)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("writing the configuration: %w", err)
	case !strings.HasPrefix(string(old), writtenBy+"\n"):
		return fmt.Errorf("writing the configuration %s: %w", path, ErrForeignConfig)
	default:
		return nil
	}
}

func readBounded(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s has more than %d bytes", path, limit)
	}
	return data, nil
}
