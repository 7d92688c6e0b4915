package sim

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"

	"keywright.dev/kms/api"
	"keywright.dev/kms/exchange"
	"keywright.dev/kms/secret"
)

// Guest is the guest's side of the service; [api.GuestClient] is one.
type Guest interface {
	Challenge(ctx context.Context) (api.Challenge, error)
	Release(ctx context.Context, r api.ReleaseRequest) (api.ReleaseResponse, error)
	Begin(ctx context.Context, r api.BeginRequest) (api.BeginResponse, error)
	Complete(ctx context.Context, r api.CompleteRequest) (api.CompleteResponse, error)
	CommitChallenge(ctx context.Context) (api.Challenge, error)
	Commit(ctx context.Context, r api.CommitRequest) (api.CommitResponse, error)
	StageChallenge(ctx context.Context) (api.Challenge, error)
	Stage(ctx context.Context, r api.StageRequest) (api.StageResponse, error)
}

// Machine is a guest with a simulated TPM. It is not safe for concurrent use.
type Machine struct {
	TPM  *TPM
	Log  *Log
	Name string
	// ServiceKey is the fingerprint of the service identity key that it pins.
	ServiceKey [32]byte
	// Pins are all that its boots say it pins; empty: ServiceKey.
	Pins    [][]byte
	Volumes []Volume
	// Add has it add its volumes to those that it enrolled with.
	Add bool
	// NoRecoveryKey enrols without recovery keys.
	NoRecoveryKey bool
	// NextBoot is what it announces for its next boot: claims of kind files.
	NextBoot []byte
	// Stages is what it says of the boots that can follow when it stages them.
	Stages exchange.StageDetails
	// Receipt is the signed audit entry of the last release.
	Receipt []byte
}

// Volume is a LUKS volume of a simulated machine: its header is told, not read.
type Volume struct {
	exchange.Volume
	// VolumeKeyDigest, Size, Slots and Tokens are what it reports of the header; tokens
	// of the service, and the keyslot of a recovery key, are added once the volume has
	// them.
	VolumeKeyDigest []byte
	Size            uint64
	Slots           []exchange.LUKSSlot
	Tokens          []exchange.LUKSToken
	// Key is what the service released last, Recovery the last recovery key.
	Key, Recovery secret.Bytes
	// Own are the service's keyslots for boots: from the enrolment on one.
	Own []Keyslot
	// NewRecovery is the keyslot of the recovery key that is taking the place of the
	// one before, or has; RecoveryGone tells that that one has none any more.
	NewRecovery  *Keyslot
	RecoveryGone bool
	// Becomes is as in [exchange.VolumeReport].
	Becomes []byte
}

// NewMachine makes a machine with volumes, booted once with log.
func NewMachine(name string, log *Log, serviceKey [32]byte, volumes int) (*Machine, error) {
	tpm, err := NewTPM()
	if err != nil {
		return nil, err
	}
	m := &Machine{TPM: tpm, Log: log, Name: name, ServiceKey: serviceKey}
	for range volumes {
		m.Volumes = append(m.Volumes, NewVolume())
	}
	slices.SortFunc(m.Volumes, func(a, b Volume) int { return strings.Compare(a.UUID, b.UUID) })
	m.Boot()
	return m, nil
}

// NewVolume makes a volume that no service knows.
func NewVolume() Volume {
	v := Volume{Volume: exchange.Volume{UUID: newUUID()}}
	v.Identity = sha256.Sum256([]byte(v.UUID))
	v.VolumeKeyDigest, v.Size = v.Identity[:8], 10<<30
	v.Slots = []exchange.LUKSSlot{{ID: 0, KDF: "argon2id", Priority: 1, Mark: "5f1a03c2"}, {ID: 1, KDF: "pbkdf2", Priority: 1, Mark: "c07d9e41"}}
	return v
}

// Adding returns the machine as it adds volumes, with the same TPM.
func (m *Machine) Adding(volumes ...Volume) *Machine {
	adding := *m
	adding.Volumes, adding.Add = volumes, true
	return &adding
}

func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// Snapshot returns a copy of the machine with all its state, as a hypervisor makes
// it.
func (m *Machine) Snapshot() *Machine {
	copied := *m
	copied.TPM, copied.Volumes = m.TPM.Snapshot(), slices.Clone(m.Volumes)
	for i := range copied.Volumes {
		copied.Volumes[i] = m.Volumes[i].Image()
	}
	return &copied
}

// Image returns a copy of the volume with its header, as an image of the disk has it.
func (v *Volume) Image() Volume {
	image := *v
	image.Slots, image.Tokens, image.Own = slices.Clone(v.Slots), slices.Clone(v.Tokens), slices.Clone(v.Own)
	return image
}

// Boot restarts the machine.
func (m *Machine) Boot() { m.TPM.Boot(m.Log) }

// Request is a statement in the making, which a test may falsify before it is
// signed.
type Request struct {
	machine   *Machine
	Statement exchange.Statement
	Recipient *exchange.Recipient
	Challenge api.Challenge
}

// Prepare makes an honest statement.
func (m *Machine) Prepare(purpose exchange.Purpose, challenge api.Challenge) (*Request, error) {
	recipient, err := exchange.NewRecipient()
	if err != nil {
		return nil, err
	}
	r := &Request{machine: m, Recipient: recipient, Challenge: challenge}
	r.Statement = exchange.Statement{
		Purpose: purpose, Challenge: [32]byte(challenge.Challenge), Machine: m.TPM.Machine(),
		ServiceKey: m.ServiceKey, Selection: exchange.SelectionBitmap(),
	}
	if purpose.HasAnswer() {
		r.Statement.Recipient = recipient.PublicKey()
	}
	for _, v := range m.Volumes {
		r.Statement.Volumes = append(r.Statement.Volumes, v.Volume)
	}
	r.Statement.Details, err = m.details(purpose)
	return r, err
}

func (m *Machine) details(purpose exchange.Purpose) ([]byte, error) {
	reports := []exchange.VolumeReport{}
	for i := range m.Volumes {
		reports = append(reports, m.report(&m.Volumes[i]))
	}
	switch purpose {
	case exchange.PurposeEnroll:
		return exchange.MarshalDetails(exchange.EnrollDetails{Name: m.Name, Add: m.Add, NoRecoveryKey: m.NoRecoveryKey})
	case exchange.PurposeCommit:
		return exchange.MarshalDetails(exchange.CommitDetails{Volumes: reports, NextBoot: m.NextBoot, Add: m.Add})
	case exchange.PurposeStage:
		stages := m.Stages
		stages.Volumes = reports
		return exchange.MarshalDetails(stages)
	default:
		return exchange.MarshalDetails(exchange.BootDetails{Volumes: reports, ServiceKeys: m.Pins})
	}
}

func (m *Machine) report(v *Volume) exchange.VolumeReport {
	if len(v.Becomes) > 0 {
		return exchange.VolumeReport{ID: v.ID, Slots: []exchange.LUKSSlot{}, Tokens: []exchange.LUKSToken{}, Becomes: v.Becomes}
	}
	report := exchange.VolumeReport{
		ID: v.ID, VolumeKeyDigest: v.VolumeKeyDigest, Size: v.Size, Slots: slices.Clone(v.Slots),
		Tokens: append(v.ownTokens(), v.Tokens...),
	}
	if v.NewRecovery != nil {
		report.Slots = append(report.Slots, exchange.LUKSSlot{ID: v.NewRecovery.Slot, KDF: "pbkdf2", Priority: 1, Mark: v.mark("rec")})
		report.Tokens = append(report.Tokens, exchange.LUKSToken{ID: 2, Type: "keywright", Slots: []int{v.NewRecovery.Slot}, Volume: v.ID, Purpose: "recovery", Version: v.NewRecovery.Version})
	}
	if v.Recovery.Len() > 0 && !m.NoRecoveryKey && !v.RecoveryGone {
		report.Slots = append(report.Slots, exchange.LUKSSlot{ID: 2, KDF: "pbkdf2", Priority: 1, Mark: "7be201d9"})
		report.Tokens = append(report.Tokens, exchange.LUKSToken{ID: 1, Type: "keywright", Slots: []int{2}, Volume: v.ID, Purpose: "recovery", Version: 1})
	}
	return report
}

// Attest quotes over the statement.
func (r *Request) Attest() (api.Attested, error) {
	statement, err := r.Statement.Marshal()
	if err != nil {
		return api.Attested{}, err
	}
	tpm := r.machine.TPM
	attested, signature, err := tpm.Quote(exchange.ExtraData(r.Statement.Purpose, statement))
	if err != nil {
		return api.Attested{}, err
	}
	return api.Attested{
		Machine: r.Statement.Machine, Challenge: r.Challenge.Challenge, Token: r.Challenge.Token, Statement: statement,
		Evidence: api.Evidence{Quote: attested, Signature: signature, PCRs: tpm.PCRs.Marshal(), EventLog: r.machine.Log.Bytes},
	}, nil
}

// Open verifies and opens what came back, as the guest does.
func (r *Request) Open(statement []byte, sealed api.Sealed) (*exchange.Release, error) {
	pins := [][32]byte{r.machine.ServiceKey}
	if err := exchange.VerifyResponse(pins, sealed.ServiceKey, statement, sealed.Response, sealed.Signature); err != nil {
		return nil, err
	}
	return r.Recipient.OpenRelease(statement, sealed.Response)
}

// keep takes over what a release says of the machine's volumes.
func (m *Machine) keep(release *exchange.Release) error {
	if len(release.Secrets) != len(m.Volumes) {
		return fmt.Errorf("%d secrets for %d volumes", len(release.Secrets), len(m.Volumes))
	}
	for i, s := range release.Secrets {
		v := &m.Volumes[i]
		if s.UUID != v.UUID {
			return fmt.Errorf("secret %d is for another volume", i)
		}
		if v.ID != s.Volume || len(v.Own) == 0 || s.Resume != [16]byte{} {
			v.Own = []Keyslot{{Slot: 1, Version: s.Version, Key: s.Key.Clone()}} // an enrolment's
		}
		if v.ID, v.Resume, v.Key = s.Volume, s.Resume, s.Key; !v.Opens(s.Key) {
			return fmt.Errorf("secret %d, version %d, opens no keyslot", i, s.Version)
		}
		if s.Recovery.Len() > 0 {
			v.Recovery = s.Recovery
		}
	}
	m.Receipt = release.Entry
	return nil
}
