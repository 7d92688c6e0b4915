package rotate

import (
	"time"

	"keywright.dev/kms"
)

// Policy says when what is due. Its rules are tried in their order and the first
// that matches holds, whole: nothing is taken from a later one. The last rule
// matches everything.
type Policy struct {
	Rules []Rule
}

// Rule holds for what all of its lists match; an empty list matches everything.
type Rule struct {
	// Name is unique within the policy.
	Name string
	// Keyrings match the keyring that wraps, which is the classification; Groups and
	// Machines the group and the name of the machine. Each is a list of names, in
	// which * stands for any characters.
	Keyrings, Groups, Machines []string
	Settings
}

// Settings are what a rule sets.
type Settings struct {
	// Priority, 0 to 100, is how much is at stake: of what a compromised key
	// reached, the highest is mended first.
	Priority int
	// KeyringAge is how old the current version of a keyring may become, SecretAge
	// the secret of a volume, VolumeKeyAge the key that its data is encrypted with.
	KeyringAge, SecretAge, VolumeKeyAge Age
	// Jitter is the time before an age is reached within which the work begins: each
	// object has its own moment in it.
	Jitter time.Duration
	// Windows are when work may begin; none is always.
	Windows []Window
	// Rate bounds the orders that begin, Concurrency those that are open at the same
	// time at machines that can be reached.
	Rate        Rate
	Concurrency int
	// AnswerWithin is how long a machine may take over an order that has not failed:
	// what is overdue meanwhile is on its way.
	AnswerWithin time.Duration
	// RetainForRestore is how long a secret is kept, after a new one took its
	// place, for images of the disk from before.
	RetainForRestore time.Duration
	// DestroyWait is how long the destruction of a keyring version can be cancelled.
	DestroyWait time.Duration
	// RetireMeasurementsAfter is how many good boots of newer ones each machine of a
	// group has before a measurement is not approved any more; 0 is never.
	RetireMeasurementsAfter int
}

// DefaultRule is the name of the rule that matches everything.
const DefaultRule = "default"

// Shipped returns the settings of whatever a policy does not set.
//
// A keyring version wraps secrets, and a volume's secret opens the keyslot that wraps
// the volume key: both are symmetric key-wrapping keys, which NIST SP 800-57 part 1
// revision 5, section 5.3.6 and table 1, would have wrap for at most two years and
// unwrap for at most three more. A year leaves a year for machines that are away. That
// a version unwraps no longer than that needs no setting: what it wrapped is rewrapped
// as soon as there is another.
//
// The volume key is a symmetric data-encryption key, with the same periods. It is not
// replaced for its age here, since every replacement writes the whole disk anew while
// what was copied before stays open to the old key: whoever wants it says so in a rule.
func Shipped() Settings {
	const year = Age(365 * day)
	return Settings{
		Priority:     50,
		KeyringAge:   year,
		SecretAge:    year,
		VolumeKeyAge: Never,
		Jitter:       30 * day,
		Rate:         Rate{600, time.Hour},
		Concurrency:  50,
		AnswerWithin: 7 * day,
		// A year's images, and a month in which nobody looked.
		RetainForRestore: 400 * day,
		DestroyWait:      kms.DefaultDestroyWait,
	}
}

// Default is the policy of who wrote none.
func Default() *Policy { return &Policy{[]Rule{{Name: DefaultRule, Settings: Shipped()}}} }
