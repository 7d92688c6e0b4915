//go:build integration

package sealed_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/hsm/tpm"
	"keywright.dev/hsm/tpm/sealed"
	"keywright.dev/kms/root"
	"keywright.dev/kms/root/roottest"
	"keywright.dev/test/swtpm"
)

// host is a server with a TPM, which opens like a device and may be troubled.
type host struct {
	emulated *swtpm.TPM
	dir      string

	mu      sync.Mutex
	slow    time.Duration
	changed chan struct{} // closed when slow is set anew
	refuse  int           // how many commands are answered with code
	code    tpm2.TPMRC
	down    bool
	wire    [][]byte
}

func newHost(t testing.TB) *host {
	t.Helper()
	return &host{emulated: swtpm.New(t), dir: t.TempDir(), changed: make(chan struct{})}
}

func (h *host) uri(query string) string {
	return (&url.URL{Scheme: "tpm", Path: h.path()}).String() + query
}

func (h *host) path() string { return filepath.Join(h.dir, "root.tpm") }

func (h *host) open(path string) (*tpm.Device, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.down {
		return tpm.Open(filepath.Join(h.dir, "absent"))
	}
	if path != tpm.DefaultPath {
		return nil, errors.New("another device than the URI's")
	}
	return tpm.New(h), nil
}

func (h *host) Send(command []byte) ([]byte, error) {
	h.mu.Lock()
	slow, changed := h.slow, h.changed
	refused, code := h.refuse > 0, h.code
	if refused {
		h.refuse--
	}
	h.mu.Unlock()
	select {
	case <-time.After(slow):
	case <-changed:
	}
	if refused {
		return binary.BigEndian.AppendUint32([]byte{0x80, 0x01, 0, 0, 0, 10}, uint32(code)), nil
	}
	response, err := h.emulated.Send(command)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.wire = append(h.wire, command, response)
	return response, err
}

func (h *host) setSlow(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.slow = d
	close(h.changed)
	h.changed = make(chan struct{})
}

func (h *host) answer(code tpm2.TPMRC, times int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.code, h.refuse = code, times
}

func (h *host) setDown(down bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.down = down
}

func (h *host) create(t testing.TB, query string) *sealed.Root {
	t.Helper()
	r, err := sealed.Create(t.Context(), h.uri(query), rand.Reader, h.open)
	require.NoError(t, err)
	return r
}

func (h *host) opened(t testing.TB, query string) *sealed.Root {
	t.Helper()
	r, err := sealed.Open(t.Context(), h.uri(query), h.open)
	require.NoError(t, err)
	return r
}

func TestConformance(t *testing.T) {
	for name, query := range map[string]string{"any boot": "", "one boot": "?pcrs=7&device=/dev/tpmrm0"} {
		t.Run(name, func(t *testing.T) {
			roottest.Run(t, func(t *testing.T) roottest.Subject {
				h := newHost(t)
				subject := roottest.Subject{
					Root:  h.create(t, query),
					Again: func(t testing.TB) root.Root { return h.opened(t, query) },
					Other: func(t testing.TB) root.Root {
						other := &host{emulated: h.emulated, dir: t.TempDir(), changed: make(chan struct{})}
						return other.create(t, query)
					},
					Down:     func(t testing.TB) { require.NoError(t, h.emulated.Close()) },
					Up:       func(t testing.TB) { require.NoError(t, h.emulated.Restart()) },
					Slow:     func(_ testing.TB, d time.Duration) { h.setSlow(d) },
					Throttle: func(_ testing.TB, n int) { h.answer(tpm2.TPMRCRetry, n) },
				}
				if query != "" {
					subject.Forbid = func(t testing.TB) { require.NoError(t, h.emulated.Extend(7, [32]byte{1})) }
				}
				return subject
			})
		})
	}
}

func TestAnotherTPM(t *testing.T) {
	here, there := newHost(t), newHost(t)
	w := wrapped(t, here.create(t, ""))
	text, err := os.ReadFile(here.path())
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(there.path(), text, 0o600))
	moved := there.opened(t, "")
	assert.Equal(t, here.opened(t, "").URI(), moved.URI())
	_, err = moved.Unwrap(t.Context(), w, []byte("c"))
	require.ErrorIs(t, err, root.ErrRefused)
	require.ErrorIs(t, err, tpm.ErrOtherMachine)
	require.ErrorContains(t, err, "sealed for another TPM")
}

func TestOtherBoot(t *testing.T) {
	h := newHost(t)
	require.NoError(t, h.emulated.Extend(7, [32]byte{1}))
	w := wrapped(t, h.create(t, "?pcrs=7"))
	require.NoError(t, h.emulated.Reset())
	r := h.opened(t, "?pcrs=7")
	_, err := r.Unwrap(t.Context(), w, []byte("c"))
	require.ErrorIs(t, err, root.ErrRefused)
	require.ErrorIs(t, err, tpm.ErrPCRs)
	require.ErrorContains(t, err, "seal a new key to this boot")
	require.NoError(t, h.emulated.Extend(7, [32]byte{1}))
	opens(t, r, w)

	for _, query := range []string{"", "?pcrs=4", "?pcrs=4,7"} {
		_, err := sealed.Open(t.Context(), h.uri(query), h.open)
		require.ErrorContains(t, err, "write pcrs=7")
	}
}

func TestPowerCycles(t *testing.T) {
	h := newHost(t)
	w := wrapped(t, h.create(t, ""))
	for _, cycle := range []func() error{h.emulated.Reset, h.emulated.Restart, h.emulated.Resume, h.emulated.Hibernate} {
		r := h.opened(t, "")
		require.NoError(t, cycle())
		opens(t, r, w)
		opens(t, h.opened(t, ""), w)
	}
}

func TestOpenNeedsNoTPM(t *testing.T) {
	h := newHost(t)
	w := wrapped(t, h.create(t, ""))
	h.setDown(true)
	r := h.opened(t, "")
	_, err := r.Unwrap(t.Context(), w, []byte("c"))
	require.ErrorIs(t, err, root.ErrUnavailable)
	require.ErrorContains(t, err, "this machine has no TPM")
	h.setDown(false)
	opens(t, r, w)
}

// A device that is absent may come; one that is something else does not turn into a TPM.
func TestDeviceThatIsNone(t *testing.T) {
	h := newHost(t)
	w := wrapped(t, h.create(t, ""))
	for device, class := range map[string]error{h.path(): root.ErrRefused, h.path() + ".absent": root.ErrUnavailable} {
		r, err := sealed.Open(t.Context(), h.uri("?device="+device), tpm.Open)
		require.NoError(t, err)
		_, err = r.Unwrap(t.Context(), w, []byte("c"))
		require.ErrorIs(t, err, class, device)
	}
}

func TestWhatTheTPMAnswers(t *testing.T) {
	h := newHost(t)
	r := h.create(t, "")
	w := wrapped(t, r)
	for code, class := range map[tpm2.TPMRC]error{
		tpm2.TPMRCLockout:        root.ErrRefused,
		tpm2.TPMRCHierarchy:      root.ErrRefused,
		tpm2.TPMRCAuthFail:       root.ErrRefused,
		tpm2.TPMRCObjectMemory:   root.ErrUnavailable,
		tpm2.TPMRCSessionHandles: root.ErrUnavailable,
		tpm2.TPMRCFailure:        root.ErrUnavailable,
		tpm2.TPMRCInitialize:     root.ErrUnavailable,
		tpm2.TPMRCCanceled:       root.ErrUnavailable,
	} {
		h.answer(code, 1)
		_, err := r.Unwrap(t.Context(), w, []byte("c"))
		require.ErrorIs(t, err, class, code.Error())
		require.ErrorIs(t, err, code)
		require.NotErrorIs(t, err, root.ErrDoesNotOpen)
		h.answer(0, 0)
		opens(t, r, w)
	}
	h.answer(tpm2.TPMRCLockout, 1)
	_, err := r.Unwrap(t.Context(), w, []byte("c"))
	require.ErrorContains(t, err, "tpm2_dictionarylockout")
}

func TestKeyIsNotKept(t *testing.T) {
	h := newHost(t)
	r := h.create(t, "")
	w := wrapped(t, r)
	for range 3 {
		h.wire = nil
		opens(t, r, w)
		asked := 0
		for i := 0; i < len(h.wire); i += 2 {
			if tpm2.TPMCC(binary.BigEndian.Uint32(h.wire[i][6:])) == tpm2.TPMCCUnseal {
				asked++
			}
		}
		require.Equal(t, 1, asked)
	}
	require.Empty(t, loaded(t, h.emulated))
}

func TestAttack13RootKeyCrossesTheBusEncrypted(t *testing.T) {
	h := newHost(t)
	var drawn bytes.Buffer
	r, err := sealed.Create(t.Context(), h.uri("?pcrs=7"), io.TeeReader(rand.Reader, &drawn), h.open)
	require.NoError(t, err)
	opens(t, r, wrapped(t, r))
	key := drawn.Bytes()
	require.Len(t, key, root.KeySize)
	require.NotEmpty(t, h.wire)
	for _, packet := range h.wire {
		require.False(t, bytes.Contains(packet, key))
	}
	text, err := os.ReadFile(h.path())
	require.NoError(t, err)
	require.False(t, bytes.Contains(text, key))
}

func TestFilesThatAreRefused(t *testing.T) {
	h := newHost(t)
	h.create(t, "")
	text, err := os.ReadFile(h.path())
	require.NoError(t, err)
	for i := range text {
		for _, altered := range [][]byte{text[:i], turned(text, i)} {
			require.NoError(t, os.WriteFile(h.path(), altered, 0o600))
			_, err := sealed.Open(t.Context(), h.uri(""), h.open)
			require.Error(t, err, "byte %d", i)
			require.ErrorContains(t, err, h.path())
		}
	}
	require.NoError(t, os.WriteFile(h.path(), text, 0o600))
	require.NoError(t, os.Chmod(h.path(), 0o644))
	_, err = sealed.Open(t.Context(), h.uri(""), h.open)
	require.ErrorContains(t, err, "chmod 600")
	require.NoError(t, os.Remove(h.path()))
	_, err = sealed.Open(t.Context(), h.uri(""), h.open)
	require.ErrorIs(t, err, fs.ErrNotExist)
}

func TestCreateReplacesNothing(t *testing.T) {
	h := newHost(t)
	name := h.create(t, "").URI()
	_, err := sealed.Create(t.Context(), h.uri(""), rand.Reader, h.open)
	require.ErrorIs(t, err, fs.ErrExist)
	assert.Equal(t, name, h.opened(t, "").URI())
}

func TestCreateFails(t *testing.T) {
	h := newHost(t)
	_, err := sealed.Create(t.Context(), h.uri(""), iotest.ErrReader(errors.New("no entropy")), h.open)
	require.ErrorContains(t, err, "no entropy")
	h.setDown(true)
	_, err = sealed.Create(t.Context(), h.uri(""), rand.Reader, h.open)
	require.ErrorIs(t, err, root.ErrUnavailable)
	h.setDown(false)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = sealed.Create(ctx, h.uri(""), rand.Reader, h.open)
	require.ErrorIs(t, err, root.ErrUnavailable)
	require.NoFileExists(t, h.path())
}

func wrapped(t testing.TB, r root.Root) []byte {
	t.Helper()
	w, err := r.Wrap(t.Context(), roottest.Key(1), []byte("c"))
	require.NoError(t, err)
	return w.Ciphertext
}

func opens(t testing.TB, r root.Root, ciphertext []byte) {
	t.Helper()
	key, err := r.Unwrap(t.Context(), ciphertext, []byte("c"))
	require.NoError(t, err)
	require.True(t, key.Equal(roottest.Key(1)))
}

func turned(text []byte, i int) []byte {
	altered := bytes.Clone(text)
	altered[i] ^= 1
	return altered
}

// loaded returns the handles of transient objects and sessions in the TPM.
func loaded(t testing.TB, emulated transport.TPM) []tpm2.TPMHandle {
	t.Helper()
	var all []tpm2.TPMHandle
	for _, first := range []uint32{0x80000000, 0x02000000, 0x03000000} {
		rsp, err := tpm2.GetCapability{Capability: tpm2.TPMCapHandles, Property: first, PropertyCount: 64}.Execute(emulated)
		require.NoError(t, err)
		handles, err := rsp.CapabilityData.Data.Handles()
		require.NoError(t, err)
		all = append(all, handles.Handle...)
	}
	return all
}
