//go:build integration && cgo

package pkcs11_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	p11 "github.com/miekg/pkcs11"
	"github.com/stretchr/testify/require"

	"keywright.dev/hsm/pkcs11"
	"keywright.dev/kms/root"
)

const (
	softHSM = "/usr/lib/softhsm/libsofthsm2.so"
	userPIN = "1234-user"
)

// hsm is a SoftHSM with one token, in a copy of the module that no other test
// shares state with.
type hsm struct {
	dir    string
	module string // what roots load
	label  string
	pin    string // file
	faults string // folder, see testdata/faults.c; empty without
	shared *pkcs11.Modules
}

func newHSM(t *testing.T) *hsm {
	t.Helper()
	dir := t.TempDir()
	h := &hsm{dir: dir, module: filepath.Join(dir, "module.so"), label: "keywright test", pin: filepath.Join(dir, "pin"), shared: &pkcs11.Modules{}}
	require.NoError(t, os.Mkdir(filepath.Join(dir, "tokens"), 0o700))
	conf := filepath.Join(dir, "softhsm2.conf")
	require.NoError(t, os.WriteFile(conf, fmt.Appendf(nil, "directories.tokendir = %s/tokens\nobjectstore.backend = file\nslots.removable = true\n", dir), 0o600))
	t.Setenv("SOFTHSM2_CONF", conf)
	module, err := os.ReadFile(softHSM)
	require.NoError(t, err, "install softhsm2: test/setup integration")
	require.NoError(t, os.WriteFile(h.module, module, 0o700))
	h.initToken(t, h.label)
	h.writePIN(t, userPIN)
	return h
}

// newFaultyHSM puts testdata/faults.c before it.
func newFaultyHSM(t *testing.T) *hsm {
	t.Helper()
	h := newHSM(t)
	real := h.module
	h.faults, h.module = filepath.Join(h.dir, "faults"), filepath.Join(h.dir, "faults.so")
	require.NoError(t, os.Mkdir(h.faults, 0o700))
	headers := run(t, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/miekg/pkcs11")
	run(t, "gcc", "-shared", "-fPIC", "-w", "-I", headers, "-DMODULE=\""+real+"\"", "-DFOLDER=\""+h.faults+"\"",
		"-o", h.module, "testdata/faults.c", "-ldl")
	return h
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	require.NoError(t, err, "%s: %s", name, out)
	return strings.TrimSpace(string(out))
}

func (h *hsm) initToken(t *testing.T, label string) {
	t.Helper()
	run(t, "softhsm2-util", "--init-token", "--free", "--label", label, "--so-pin", "87654321", "--pin", userPIN)
}

func (h *hsm) writePIN(t testing.TB, pin string) {
	t.Helper()
	require.NoError(t, os.WriteFile(h.pin, []byte(pin+"\n"), 0o600))
}

// fault has the next n calls of a function fail.
func (h *hsm) fault(t testing.TB, function string, code p11.Error, n int) {
	t.Helper()
	h.say(t, function, fmt.Sprintf("%x %d", uint(code), n))
}

func (h *hsm) say(t testing.TB, file, text string) {
	t.Helper()
	temporary := filepath.Join(h.faults, "new")
	require.NoError(t, os.WriteFile(temporary, []byte(text), 0o600))
	require.NoError(t, os.Rename(temporary, filepath.Join(h.faults, file)))
}

func (h *hsm) healed(t testing.TB, file string) {
	t.Helper()
	require.NoError(t, os.Remove(filepath.Join(h.faults, file)))
}

// calls counts those of a function until now.
func (h *hsm) calls(t testing.TB, function string) int {
	t.Helper()
	log, err := os.ReadFile(filepath.Join(h.faults, "log"))
	require.NoError(t, err)
	return strings.Count(string(log), function+"\n")
}

// uri returns one with these attributes of the path.
func (h *hsm) uri(attributes string) string {
	return fmt.Sprintf("pkcs11:%s?module-path=%s&pin-source=file:%s", attributes, h.module, h.pin)
}

func (h *hsm) settings() pkcs11.Settings {
	return pkcs11.Settings{Random: rand.Reader, Modules: h.shared}
}

// makeKey returns the URI of a new key.
func (h *hsm) makeKey(t testing.TB, label string) string {
	t.Helper()
	uri, err := pkcs11.Init(t.Context(), h.uri("token=keywright%20test;object="+label), h.settings())
	require.NoError(t, err)
	return uri
}

func (h *hsm) open(t testing.TB, uri string) *pkcs11.Root {
	t.Helper()
	r, err := pkcs11.Open(t.Context(), uri, h.settings())
	require.NoError(t, err)
	h.closeAtEnd(t, r)
	return r
}

func (h *hsm) closeAtEnd(t testing.TB, r *pkcs11.Root) {
	t.Helper()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		r.Close(ctx)
	})
}

// refused demands that a URI is not opened.
func (h *hsm) refused(t *testing.T, uri string) error {
	t.Helper()
	_, err := pkcs11.Open(t.Context(), uri, h.settings())
	require.ErrorIs(t, err, root.ErrRefused)
	require.NotErrorIs(t, err, root.ErrUnavailable)
	require.NotContains(t, err.Error(), userPIN)
	return err
}

// onToken does something on the token by other means than a root.
func (h *hsm) onToken(t testing.TB, do func(*p11.Ctx, p11.SessionHandle)) {
	t.Helper()
	ctx := p11.New(h.module)
	require.NotNil(t, ctx)
	if err := ctx.Initialize(); err == nil {
		defer func() { require.NoError(t, ctx.Finalize()) }()
	} else {
		require.ErrorIs(t, err, p11.Error(p11.CKR_CRYPTOKI_ALREADY_INITIALIZED))
	}
	slots, err := ctx.GetSlotList(true)
	require.NoError(t, err)
	session, err := ctx.OpenSession(slots[0], p11.CKF_SERIAL_SESSION|p11.CKF_RW_SESSION)
	require.NoError(t, err)
	defer func() { require.NoError(t, ctx.CloseSession(session)) }()
	if err := ctx.Login(session, p11.CKU_USER, userPIN); err != nil {
		require.ErrorIs(t, err, p11.Error(p11.CKR_USER_ALREADY_LOGGED_IN))
	}
	do(ctx, session)
}

// generate makes an AES key as no Init would.
func (h *hsm) generate(t testing.TB, size int, attributes ...*p11.Attribute) {
	t.Helper()
	h.onToken(t, func(ctx *p11.Ctx, session p11.SessionHandle) {
		_, err := ctx.GenerateKey(session, []*p11.Mechanism{p11.NewMechanism(p11.CKM_AES_KEY_GEN, nil)},
			append(attributes, p11.NewAttribute(p11.CKA_TOKEN, true), p11.NewAttribute(p11.CKA_VALUE_LEN, size)))
		require.NoError(t, err)
	})
}

func named(label string, id byte) []*p11.Attribute {
	return []*p11.Attribute{p11.NewAttribute(p11.CKA_LABEL, label), p11.NewAttribute(p11.CKA_ID, []byte{id})}
}

// forbid takes from every key the right to encrypt and decrypt.
func (h *hsm) forbid(t testing.TB) {
	t.Helper()
	h.onToken(t, func(ctx *p11.Ctx, session p11.SessionHandle) {
		require.NoError(t, ctx.FindObjectsInit(session, nil))
		keys, _, err := ctx.FindObjects(session, 16)
		require.NoError(t, err)
		require.NoError(t, ctx.FindObjectsFinal(session))
		for _, key := range keys {
			require.NoError(t, ctx.SetAttributeValue(session, key, []*p11.Attribute{
				p11.NewAttribute(p11.CKA_ENCRYPT, false), p11.NewAttribute(p11.CKA_DECRYPT, false),
			}))
		}
	})
}

func (h *hsm) takeAway(t testing.TB) {
	t.Helper()
	require.NoError(t, os.Rename(filepath.Join(h.dir, "tokens"), filepath.Join(h.dir, "away")))
	require.NoError(t, os.Mkdir(filepath.Join(h.dir, "tokens"), 0o700))
}

func (h *hsm) bringBack(t testing.TB) {
	t.Helper()
	require.NoError(t, os.RemoveAll(filepath.Join(h.dir, "tokens")))
	require.NoError(t, os.Rename(filepath.Join(h.dir, "away"), filepath.Join(h.dir, "tokens")))
}
