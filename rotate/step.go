package rotate

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Kind is what a step does.
type Kind string

// The kinds. Rewrap puts another wrapping around the same secret, rekey makes a new
// secret with a new keyslot, reencrypt makes a new volume key.
const (
	RotateKeyring         Kind = "rotate-keyring"
	RewrapKeyring         Kind = "rewrap-keyring"
	DisableKeyringVersion Kind = "disable-keyring-version"
	DestroyKeyringVersion Kind = "destroy-keyring-version"
	RekeyVolume           Kind = "rekey-volume"
	DestroySecret         Kind = "destroy-secret"
	ReencryptVolume       Kind = "reencrypt-volume"
	RetireMeasurement     Kind = "retire-measurement"
)

// Object is what a step is done to: a keyring, a version of it, a volume, a version of
// its secret, or a measurement.
type Object struct {
	Type    string // keyring, volume or measurement
	Name    string // of the keyring, id of the volume, or digest in hex
	Version uint32 // 0 for all of it
	Group   string // of machines; that of a measurement
}

// The types of objects.
const (
	typeKeyring = "keyring"
	typeVolume  = "volume"

	typeMeasurement = "measurement"
)

func keyringObject(name string, version uint32) Object {
	return Object{Type: typeKeyring, Name: name, Version: version}
}

func volumeObject(id string, version uint32) Object {
	return Object{Type: typeVolume, Name: id, Version: version}
}

// String returns keyring/NAME, keyring/NAME@3, volume/ID or volume/ID@3.
func (o Object) String() string {
	if o.Version == 0 {
		return o.Type + "/" + o.Name
	}
	return fmt.Sprintf("%s/%s@%d", o.Type, o.Name, o.Version)
}

// ParseObject reads what [Object.String] returns.
func ParseObject(text string) (Object, error) {
	kind, name, _ := strings.Cut(text, "/")
	o := Object{Type: kind, Name: name}
	ok := true
	if strings.Contains(name, "@") {
		o.Name, o.Version, ok = parseVersion(name)
	}
	if !ok || !slices.Contains([]string{typeKeyring, typeVolume, typeMeasurement}, kind) || !validName(o.Name, 64, "-") {
		return Object{}, fmt.Errorf("%.80q names no object of a step: want keyring/NAME, volume/ID or measurement/DIGEST, with @N of one version", text)
	}
	return o, nil
}

// Action is a kind of step and what it is done to; it names a step within a plan.
type Action struct {
	Kind   Kind
	Object Object
}

// String returns "rekey-volume volume/ID".
func (a Action) String() string { return string(a.Kind) + " " + a.Object.String() }

// Step is one thing to do.
type Step struct {
	Action
	Machine string // id; of a step of a volume
	// Boots is after how many good boots of newer ones a measurement is retired.
	Boots  int
	Rule   string // name of the rule by which it is due
	Reason string
	// Due is since when it is due, NotBefore from when on it may begin.
	Due       time.Time
	NotBefore time.Time
	// After are the steps of the same plan that are done before it begins.
	After []Action
	// AtBoot tells that nothing but an attested boot of the machine is to carry the
	// order out.
	AtBoot bool
	// Away tells that the machine cannot be reached: the order waits until it boots
	// or can be.
	Away bool
	// Wait is how long the destruction of a keyring version can be cancelled.
	Wait time.Duration
	Cost Cost
}

// Hold is what keeps a due step out of a plan.
type Hold string

// What is waited for.
const (
	HoldNone        Hold = "" // it is in the plan
	HoldConcurrency Hold = "concurrency"
	HoldRate        Hold = "rate"
	// HoldMachine waits for a machine that is away.
	HoldMachine Hold = "machine"
	// HoldOrder waits for an order that is open for the volume.
	HoldOrder Hold = "order"
	// HoldRestore waits for the end of a restore that is announced.
	HoldRestore Hold = "restore"
	// HoldWindow waits for a window that never opens.
	HoldWindow Hold = "window"
	// HoldCensus waits for a version on which something still depends.
	HoldCensus Hold = "census"
	// HoldPlan waits for the next plan: this one is full.
	HoldPlan Hold = "plan"
)
