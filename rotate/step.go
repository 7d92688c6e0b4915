package rotate

import (
	"fmt"
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
}

// The types of objects.
const (
	typeKeyring = "keyring"
	typeVolume  = "volume"

	typeMeasurement = "measurement"
)

func keyringObject(name string, version uint32) Object { return Object{typeKeyring, name, version} }

func volumeObject(id string, version uint32) Object { return Object{typeVolume, id, version} }

// String returns keyring/NAME, keyring/NAME@3, volume/ID or volume/ID@3.
func (o Object) String() string {
	if o.Version == 0 {
		return o.Type + "/" + o.Name
	}
	return fmt.Sprintf("%s/%s@%d", o.Type, o.Name, o.Version)
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
	Group   string // of a step of a measurement
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
	// Recovery tells that the recovery key is replaced as well.
	Recovery bool
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
	// HoldWindow waits for a window that never opens.
	HoldWindow Hold = "window"
	// HoldCensus waits for a version on which something still depends.
	HoldCensus Hold = "census"
	// HoldPlan waits for the next plan: this one is full.
	HoldPlan Hold = "plan"
)
