package unlock_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keywright.dev/hsm/tpm"
	"keywright.dev/kms/api"
	"keywright.dev/kms/exchange"
	"keywright.dev/kms/secret"
	"keywright.dev/test/sim"
	"keywright.dev/unlock"
	"keywright.dev/unlock/luks"
)

// journal is what happened, in its order.
type journal struct{ events []string }

func (j *journal) add(format string, args ...any) {
	j.events = append(j.events, fmt.Sprintf(format, args...))
}

// simTPM is a simulated TPM as the guest sees it.
type simTPM struct {
	*sim.TPM
	journal *journal
	stuck   error // of PCR 15
	mute    error // of quotes
	blind   error // of PCR 15 once it is extended
}

func newSimTPM(t *testing.T, j *journal) *simTPM {
	t.Helper()
	device, err := sim.NewTPM()
	require.NoError(t, err)
	return &simTPM{TPM: device, journal: j}
}

func (s *simTPM) EK() exchange.EK {
	ek, err := exchange.CheckEK(s.EKPublic)
	if err != nil {
		panic(err)
	}
	return ek
}

func (s *simTPM) Collect(extraData [32]byte, _ string) (tpm.Evidence, error) {
	s.journal.add("quote")
	if s.mute != nil {
		return tpm.Evidence{}, s.mute
	}
	attest, signature, err := s.Quote(extraData)
	return tpm.Evidence{Quote: tpm.Quote{Attest: attest, Signature: signature, PCRs: s.PCRs}, EventLog: []byte("log")}, err
}

func (s *simTPM) PCR15() ([32]byte, error) {
	value, _ := s.PCRs.Value(15)
	if value != [32]byte{} && s.blind != nil {
		return value, s.blind
	}
	return value, nil
}

func (s *simTPM) ExtendPCR15(event [32]byte) error {
	s.journal.add("extend")
	if s.stuck != nil {
		return s.stuck
	}
	s.Extend(15, event)
	return nil
}

// fakeService answers with a script, then honestly. Its answers are sealed and
// signed as the service's are.
type fakeService struct {
	journal *journal
	key     *ecdsa.PrivateKey
	release exchange.Release
	// script holds what to do with the next requests.
	script []func(api.ReleaseRequest) (api.ReleaseResponse, error)
	// challenge is asked before a challenge is given.
	challenge func(context.Context) error
	// forge changes an honest answer.
	forge func(*api.Sealed)
	// statements are the statements that came.
	statements []*exchange.Statement
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	return key
}

func spki(key *ecdsa.PrivateKey) []byte {
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		panic(err)
	}
	return der
}

func (s *fakeService) pin() [32]byte { return exchange.Fingerprint(spki(s.key)) }

func (s *fakeService) Challenge(ctx context.Context) (api.Challenge, error) {
	if s.challenge != nil {
		if err := s.challenge(ctx); err != nil {
			return api.Challenge{}, err
		}
	}
	random := make([]byte, 32)
	_, _ = rand.Read(random) // never fails
	selection := exchange.SelectionBitmap()
	return api.Challenge{Challenge: random, Token: []byte("token"), Selection: selection[:]}, nil
}

func (s *fakeService) Release(_ context.Context, r api.ReleaseRequest) (api.ReleaseResponse, error) {
	s.journal.add("request")
	statement, err := exchange.ParseStatement(r.Statement)
	if err != nil {
		return api.ReleaseResponse{}, err
	}
	s.statements = append(s.statements, statement)
	if len(s.script) > 0 {
		next := s.script[0]
		s.script = s.script[1:]
		return next(r)
	}
	return s.answer(statement, r.Statement)
}

func (s *fakeService) answer(statement *exchange.Statement, raw []byte) (api.ReleaseResponse, error) {
	release := s.release
	release.Secrets = nil
	for _, known := range s.release.Secrets {
		known.Key = known.Key.Clone()
		release.Secrets = append(release.Secrets, known)
	}
	recipient, err := exchange.ParseRecipientKey(statement.Recipient)
	if err != nil {
		return api.ReleaseResponse{}, err
	}
	response, err := exchange.SealRelease(recipient, raw, &release)
	if err != nil {
		return api.ReleaseResponse{}, err
	}
	signature, err := exchange.SignResponse(s.key, raw, response)
	sealed := api.Sealed{Response: response, Signature: signature, ServiceKey: spki(s.key)}
	if s.forge != nil {
		s.forge(&sealed)
	}
	return api.ReleaseResponse{Sealed: sealed}, err
}

func refusal(code api.Code) func(api.ReleaseRequest) (api.ReleaseResponse, error) {
	return func(api.ReleaseRequest) (api.ReleaseResponse, error) {
		return api.ReleaseResponse{}, &api.Error{Code: code, Number: code.Number(), Message: "no"}
	}
}

func lost(api.ReleaseRequest) (api.ReleaseResponse, error) {
	return api.ReleaseResponse{}, errors.New("connection reset by peer")
}

// fakeOpener records what is opened, and with which key: a volume's key is here
// what opens its keyslot.
type fakeOpener struct {
	journal *journal
	broken  string // volume that does not open
	// sealed is a volume whose keyslot does not open.
	sealed string
	busy   error // why no volume is ready
	// opening is called before a volume is opened.
	opening func(name string)
	// stuck is a mapping that does not close.
	stuck string
}

func (o *fakeOpener) Ready(context.Context, unlock.Volume) error { return o.busy }

func (o *fakeOpener) unseal(_ context.Context, v unlock.Volume, key secret.Bytes) (secret.Bytes, error) {
	if v.Config.Name == o.sealed {
		return secret.Bytes{}, luks.ErrWrongKey
	}
	return key.Clone(), nil
}

func (o *fakeOpener) Open(_ context.Context, v unlock.Volume, volumeKey secret.Bytes) (*luks.Mapping, error) {
	if o.opening != nil {
		o.opening(v.Config.Name)
	}
	if v.Config.Name == o.broken {
		return nil, errors.New("it does not open")
	}
	o.journal.add("open %s with %s", v.Config.Name, volumeKey.Expose())
	return &luks.Mapping{Table: luks.Table{Name: v.Config.Name, Number: "254:" + v.Config.Name}}, nil
}

func (o *fakeOpener) Close(_ context.Context, name string) error {
	o.journal.add("close %s", name)
	if name == o.stuck {
		return luks.ErrBusy
	}
	return nil
}

// fakeClock passes time by sleeping.
type fakeClock struct{ now time.Time }

func (c *fakeClock) Now() time.Time { return c.now }

func (c *fakeClock) Sleep(ctx context.Context, d time.Duration) error {
	c.now = c.now.Add(d)
	return ctx.Err()
}

// rig is a boot of two volumes against one service.
type rig struct {
	*journal
	boot    *unlock.Boot
	tpm     *simTPM
	service *fakeService
	opener  *fakeOpener
	clock   *fakeClock
	dir     string
	lines   []string
	reboots int
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{journal: new(journal), dir: t.TempDir()}
	r.tpm = newSimTPM(t, r.journal)
	// A guest whose clock is years off boots like any other.
	r.clock = &fakeClock{now: time.Date(2016, 1, 1, 0, 0, 0, 0, time.UTC)}
	r.opener = &fakeOpener{journal: r.journal}
	r.service = &fakeService{journal: r.journal, key: newKey(t), release: exchange.Release{ID: [32]byte{7}, Entry: []byte("signed entry")}}
	r.boot = &unlock.Boot{
		TPM: r.tpm, Servers: []unlock.Server{{Host: "kw.example:8443", Service: r.service}}, Pins: [][32]byte{r.service.pin()},
		Unseal: r.opener.unseal, Opener: r.opener, Clock: r.clock, Deadline: r.clock.now.Add(90 * time.Second), Random: func() float64 { return 0.5 },
		Announce: func(line string) { r.lines = append(r.lines, line) }, Keep: unlock.RunDir(filepath.Join(r.dir, "run")),
		Reboot: func() error { r.reboots++; return nil },
	}
	r.addVolume(t, "enrolled", "vol-a", "root")
	r.addVolume(t, "aes256-4096", "vol-b", "data")
	return r
}

// addVolume adds a volume with a header that cryptsetup made.
func (r *rig) addVolume(t *testing.T, image, id, name string) {
	t.Helper()
	device := volumeFile(t, image)
	header, err := luks.ReadDevice(device)
	require.NoError(t, err)
	validated, err := header.Validate()
	require.NoError(t, err)
	identity, err := validated.Identity().Digest()
	require.NoError(t, err)
	r.boot.Volumes = append(r.boot.Volumes, unlock.Volume{
		Config: unlock.VolumeConfig{Device: "/dev/" + name, Name: name, Root: name == "root"}, ID: id, Slots: []int{1}, Identity: identity, LUKS: validated, Device: device,
	})
	r.service.release.Secrets = append(r.service.release.Secrets, exchange.ReleasedSecret{
		Volume: id, UUID: header.UUID, Version: 1, Identity: identity, Key: secret.Copy([]byte("key of " + id)),
	})
}

// volumeFile returns a volume of 8 MiB of which only the header is there.
func volumeFile(t *testing.T, image string) *os.File {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("luks", "testdata", "headers", image+".img"))
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), image)
	require.NoError(t, os.WriteFile(path, data, 0o600))
	require.NoError(t, os.Truncate(path, 8<<20))
	f, err := os.Open(path)
	require.NoError(t, err)
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// recorded returns what the boot keeps of its mappings.
func (r *rig) recorded(t *testing.T) []unlock.Opened {
	t.Helper()
	opened, err := unlock.RunDir(filepath.Join(r.dir, "run")).ReadOpened()
	require.NoError(t, err)
	return opened
}

func (r *rig) run(t *testing.T) error {
	t.Helper()
	return r.boot.Run(t.Context())
}

// failed holds that err is a failure with a code.
func failed(t *testing.T, code api.Code, err error) *unlock.Failure {
	t.Helper()
	var failure *unlock.Failure
	require.ErrorAs(t, err, &failure)
	require.Equal(t, code, failure.Code, failure.Error())
	return failure
}
