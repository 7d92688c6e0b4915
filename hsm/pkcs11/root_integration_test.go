//go:build integration && cgo

package pkcs11_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	p11 "github.com/miekg/pkcs11"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/hsm/pkcs11"
	"keywright.dev/kms/root"
	"keywright.dev/kms/root/roottest"
)

func wrap(t testing.TB, r root.Root) root.Wrapped {
	t.Helper()
	w, err := r.Wrap(t.Context(), roottest.Key(1), []byte("c"))
	require.NoError(t, err)
	return w
}

func opens(t testing.TB, r root.Root, w root.Wrapped) {
	t.Helper()
	key, err := r.Unwrap(t.Context(), w.Ciphertext, []byte("c"))
	require.NoError(t, err)
	require.True(t, key.Equal(roottest.Key(1)))
}

// fails returns the error of an unwrap, which is of this class and of no other.
func fails(t testing.TB, r root.Root, w root.Wrapped, class error) error {
	t.Helper()
	_, err := r.Unwrap(t.Context(), w.Ciphertext, []byte("c"))
	for _, one := range []error{root.ErrUnavailable, root.ErrRefused, root.ErrDoesNotOpen} {
		require.Equal(t, errors.Is(class, one), errors.Is(err, one), "%v", err)
	}
	return err
}

func TestOpensWhileTheTokenIsAway(t *testing.T) {
	h := newHSM(t)
	uri := h.makeKey(t, "root")
	before := h.open(t, uri)
	w := wrap(t, before)
	before.Close(t.Context())
	h.takeAway(t)

	r := h.open(t, uri)
	assert.Equal(t, before.URI(), r.URI())
	require.ErrorContains(t, fails(t, r, w, root.ErrUnavailable), "not there")
	_, err := pkcs11.Open(t.Context(), h.uri("token=keywright%20test;object=root"), h.settings())
	require.ErrorIs(t, err, root.ErrUnavailable)
	require.ErrorContains(t, err, "serial and id", "what it is named by is on the token alone")

	h.bringBack(t)
	opens(t, r, w)
}

func TestTokenComesBackToTwoRoots(t *testing.T) {
	h := newHSM(t)
	first, second := h.open(t, h.makeKey(t, "first")), h.open(t, h.makeKey(t, "second"))
	w, v := wrap(t, first), wrap(t, second)
	h.takeAway(t)
	for range 2 {
		fails(t, first, w, root.ErrUnavailable)
		fails(t, second, v, root.ErrUnavailable)
	}
	h.bringBack(t)
	opens(t, first, w)
	opens(t, second, v)
}

func TestOneNameHoweverItIsReached(t *testing.T) {
	h := newHSM(t)
	full := h.open(t, h.makeKey(t, "root"))
	link := filepath.Join(t.TempDir(), "link.so")
	require.NoError(t, os.Symlink(h.module, link))
	short := h.open(t, strings.ReplaceAll(h.uri("token=keywright%20test;object=root"), h.module, link))
	assert.Equal(t, full.URI(), short.URI())
	assert.Regexp(t, `^pkcs11:serial=[0-9a-f]{16};id=(%[0-9A-F]{2}){16}$`, full.URI())
	opens(t, short, wrap(t, full))
}

func TestWrongModuleIsRefused(t *testing.T) {
	h := newHSM(t)
	uri := h.uri("serial=1;id=%01")
	require.ErrorContains(t, h.refused(t, strings.ReplaceAll(uri, h.module, "/nowhere/module.so")), "no such file or directory; install it")
	require.ErrorContains(t, h.refused(t, strings.ReplaceAll(uri, h.module, h.dir)), "no regular file")
	require.ErrorContains(t, h.refused(t, strings.ReplaceAll(uri, h.module, h.pin)), "no PKCS#11 module for this machine")
}

func TestWrongTokenIsRefused(t *testing.T) {
	h := newHSM(t)
	uri := h.makeKey(t, "root")
	require.ErrorContains(t, h.refused(t, strings.ReplaceAll(uri, "token=keywright%20test", "token=other")), `token="keywright test"`)

	r := h.open(t, h.uri("serial=0000000000000000;id=%01"))
	_, err := r.Wrap(t.Context(), roottest.Key(1), nil)
	require.ErrorIs(t, err, root.ErrUnavailable)
	require.ErrorContains(t, err, `there is token="keywright test"`)
	r.Close(t.Context())

	h.initToken(t, h.label)
	h.shared = &pkcs11.Modules{}
	err = h.refused(t, h.uri("token=keywright%20test;object=root"))
	require.ErrorContains(t, err, "tell which one by serial")
	require.Equal(t, 2, strings.Count(err.Error(), `token="keywright test"`))
	h.open(t, uri)
}

func TestSeveralKeysAreRefused(t *testing.T) {
	h := newHSM(t)
	h.generate(t, 32, named("twin", 1)...)
	h.generate(t, 32, named("twin", 2)...)
	h.generate(t, 32, named("namesake", 2)...)
	require.ErrorContains(t, h.refused(t, h.uri("token=keywright%20test;object=absent")), "keywright root init")
	err := h.refused(t, h.uri("token=keywright%20test;object=twin"))
	require.ErrorContains(t, err, `id=%01 object="twin"`)
	require.ErrorContains(t, err, `id=%02 object="twin"`)
	err = h.refused(t, h.uri("token=keywright%20test;object=namesake"))
	require.ErrorContains(t, err, "have one id", "they would have one name")
	h.generate(t, 32, p11.NewAttribute(p11.CKA_LABEL, "nameless"))
	require.ErrorContains(t, h.refused(t, h.uri("token=keywright%20test;object=nameless")), "CKA_ID")
}

func TestKeyThatIsNoneForARootIsRefused(t *testing.T) {
	h := newHSM(t)
	for n, c := range []struct {
		size  int
		extra *p11.Attribute
		why   string
	}{
		{16, p11.NewAttribute(p11.CKA_SENSITIVE, true), "not 256 bits"},
		{32, p11.NewAttribute(p11.CKA_EXTRACTABLE, true), "CKA_EXTRACTABLE is set; it could leave"},
		{32, p11.NewAttribute(p11.CKA_SENSITIVE, false), "CKA_SENSITIVE is not set"},
		{32, p11.NewAttribute(p11.CKA_ENCRYPT, false), "may not encrypt"},
		{32, p11.NewAttribute(p11.CKA_DECRYPT, false), "may not decrypt"},
	} {
		h.generate(t, c.size, append(named("key", byte(n+1)), c.extra)...)
		require.ErrorContains(t, h.refused(t, h.uri("token=keywright%20test;id=%0"+string(rune('1'+n)))), c.why)
	}
	h.onToken(t, func(ctx *p11.Ctx, session p11.SessionHandle) {
		for kind, id := range map[uint]byte{p11.CKK_AES: 16, p11.CKK_GENERIC_SECRET: 17} {
			_, err := ctx.CreateObject(session, append(named("imported", id),
				p11.NewAttribute(p11.CKA_CLASS, p11.CKO_SECRET_KEY), p11.NewAttribute(p11.CKA_KEY_TYPE, kind),
				p11.NewAttribute(p11.CKA_TOKEN, true), p11.NewAttribute(p11.CKA_SENSITIVE, true), p11.NewAttribute(p11.CKA_EXTRACTABLE, false),
				p11.NewAttribute(p11.CKA_VALUE, roottest.Key(1).Expose())))
			require.NoError(t, err)
		}
	})
	require.ErrorContains(t, h.refused(t, h.uri("token=keywright%20test;id=%10")), "came from outside")
	require.ErrorContains(t, h.refused(t, h.uri("token=keywright%20test;id=%11")), "no AES key")
}

func TestInitMakesAKeyOnce(t *testing.T) {
	h := newHSM(t)
	uri := h.makeKey(t, "root")
	assert.Regexp(t, `^pkcs11:token=keywright%20test;serial=[0-9a-f]{16};object=root;id=(%[0-9A-F]{2}){16}\?module-path=/.*&pin-source=file:/.*$`, uri)
	h.onToken(t, func(ctx *p11.Ctx, session p11.SessionHandle) {
		require.NoError(t, ctx.FindObjectsInit(session, nil))
		found, _, err := ctx.FindObjects(session, 2)
		require.NoError(t, err)
		require.NoError(t, ctx.FindObjectsFinal(session))
		require.Len(t, found, 1)
		_, err = ctx.GetAttributeValue(session, found[0], []*p11.Attribute{p11.NewAttribute(p11.CKA_VALUE, nil)})
		require.ErrorIs(t, err, p11.Error(p11.CKR_ATTRIBUTE_SENSITIVE))
		have, err := ctx.GetAttributeValue(session, found[0], []*p11.Attribute{p11.NewAttribute(p11.CKA_WRAP, nil), p11.NewAttribute(p11.CKA_PRIVATE, nil)})
		require.NoError(t, err)
		assert.Equal(t, []byte{0}, have[0].Value)
		assert.Equal(t, []byte{1}, have[1].Value)
	})
	for _, again := range []string{uri, h.uri("token=keywright%20test;object=root"), h.uri("token=keywright%20test;object=root;id=%07")} {
		_, err := pkcs11.Init(t.Context(), again, h.settings())
		require.ErrorIs(t, err, pkcs11.ErrExists)
		require.ErrorIs(t, err, root.ErrRefused)
		require.ErrorContains(t, err, `object="root"`)
	}
	given, err := pkcs11.Init(t.Context(), h.uri("token=keywright%20test;id=%07"), h.settings())
	require.NoError(t, err)
	require.True(t, strings.HasSuffix(h.open(t, given).URI(), ";id=%07"))
}

func TestInitLeavesNoKeyThatDoesNotWork(t *testing.T) {
	h := newFaultyHSM(t)
	h.fault(t, "C_Encrypt", p11.CKR_MECHANISM_INVALID, 1)
	_, err := pkcs11.Init(t.Context(), h.uri("token=keywright%20test;object=root"), h.settings())
	require.ErrorIs(t, err, root.ErrRefused)
	require.ErrorContains(t, err, "no AES-GCM")
	settings := h.settings()
	settings.Random = iotest.ErrReader(errors.New("no entropy"))
	_, err = pkcs11.Init(t.Context(), h.uri("token=keywright%20test;object=root"), settings)
	require.ErrorContains(t, err, "no entropy")
	h.makeKey(t, "root")
}

func TestCallsOfATokenThatHangsAreBounded(t *testing.T) {
	h := newFaultyHSM(t)
	uri := h.makeKey(t, "root")
	r := h.open(t, uri)
	w := wrap(t, r)
	begun := func() int { return h.calls(t, "C_OpenSession") + h.calls(t, "C_DecryptInit") }
	before := begun()
	h.say(t, "slow", "600000")
	const bound = 8
	hanging, giveUp := context.WithCancel(t.Context())
	var group sync.WaitGroup
	for range bound {
		group.Go(func() {
			_, err := r.Unwrap(hanging, w.Ciphertext, []byte("c"))
			assert.ErrorIs(t, err, root.ErrUnavailable)
			assert.ErrorIs(t, err, context.Canceled)
		})
	}
	require.Eventually(t, func() bool { return begun()-before == bound }, time.Minute, time.Millisecond)
	giveUp()
	group.Wait()

	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err := r.Unwrap(ctx, w.Ciphertext, []byte("c"))
	require.ErrorIs(t, err, root.ErrUnavailable)
	require.ErrorContains(t, err, "8 calls before", "they are still under way")
	assert.Equal(t, bound, begun()-before)

	ctx, cancel = context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	settings := h.settings()
	settings.Modules = nil
	other, err := pkcs11.Open(ctx, uri, settings)
	require.NoError(t, err, "it opens before a token that hangs")
	h.closeAtEnd(t, other)
	h.healed(t, "slow")
	opens(t, r, w)
}

func TestSessionsAreBounded(t *testing.T) {
	const allowed = 3
	h := newFaultyHSM(t)
	h.say(t, "sessions", "3")
	r := h.open(t, h.makeKey(t, "root"))
	w := wrap(t, r)
	before := h.calls(t, "C_OpenSession")
	h.say(t, "slow", "20")
	var group sync.WaitGroup
	for range 40 {
		group.Go(func() {
			key, err := r.Unwrap(t.Context(), w.Ciphertext, []byte("c"))
			if assert.NoError(t, err) {
				assert.True(t, key.Equal(roottest.Key(1)))
			}
		})
	}
	group.Wait()
	h.healed(t, "slow")
	assert.LessOrEqual(t, 1+h.calls(t, "C_OpenSession")-before, allowed, "one was open")
	assert.Equal(t, 2, h.calls(t, "C_Login"), "once for Init, once for Open")
}

func TestConnectionThatBrokeIsReplacedOnce(t *testing.T) {
	h := newFaultyHSM(t)
	r := h.open(t, h.makeKey(t, "root"))
	w := wrap(t, r)
	for _, code := range []p11.Error{
		p11.CKR_DEVICE_REMOVED, p11.CKR_TOKEN_NOT_PRESENT, p11.CKR_SESSION_HANDLE_INVALID, p11.CKR_SESSION_CLOSED,
		p11.CKR_USER_NOT_LOGGED_IN, p11.CKR_DEVICE_ERROR, p11.CKR_KEY_HANDLE_INVALID, p11.CKR_CRYPTOKI_NOT_INITIALIZED,
	} {
		before := h.calls(t, "C_Login")
		h.fault(t, "C_DecryptInit", code, 1)
		opens(t, r, w)
		assert.Equal(t, 1, h.calls(t, "C_Login")-before, "%v", code)

		before = h.calls(t, "C_Login")
		h.fault(t, "C_DecryptInit", code, -1)
		require.ErrorContains(t, fails(t, r, w, root.ErrUnavailable), code.Error())
		assert.LessOrEqual(t, h.calls(t, "C_Login")-before, 1, "%v", code)
		h.healed(t, "C_DecryptInit")
		opens(t, r, w)
	}
}

func TestVagueFailureIsNoAlteredCiphertext(t *testing.T) {
	h := newFaultyHSM(t)
	r := h.open(t, h.makeKey(t, "root"))
	w := wrap(t, r)
	for _, code := range []p11.Error{p11.CKR_GENERAL_ERROR, p11.CKR_FUNCTION_FAILED} {
		h.fault(t, "C_Decrypt", code, 1)
		opens(t, r, w)
		h.fault(t, "C_Decrypt", code, -1)
		fails(t, r, w, root.ErrUnavailable)
		h.healed(t, "C_Decrypt")
		opens(t, r, w)
	}
	h.fault(t, "C_Decrypt", p11.CKR_ENCRYPTED_DATA_INVALID, 1)
	fails(t, r, w, root.ErrDoesNotOpen)
	h.fault(t, "C_DecryptInit", p11.CKR_KEY_FUNCTION_NOT_PERMITTED, 1)
	require.ErrorContains(t, fails(t, r, w, root.ErrRefused), "CKA_DECRYPT")
	h.fault(t, "C_DecryptInit", 0x80000042, 1)
	fails(t, r, w, root.ErrUnavailable)
}

func TestFormIsCheckedBeforeTheTokenIsAsked(t *testing.T) {
	h := newFaultyHSM(t)
	r := h.open(t, h.makeKey(t, "root"))
	w := wrap(t, r)
	before := h.calls(t, "C_DecryptInit")
	for _, ciphertext := range [][]byte{nil, w.Ciphertext[:60], append(w.Ciphertext[:61:61], 0), append([]byte{2}, w.Ciphertext[1:]...)} {
		fails(t, r, root.Wrapped{Ciphertext: ciphertext}, root.ErrDoesNotOpen)
	}
	assert.Equal(t, before, h.calls(t, "C_DecryptInit"))
	_, err := r.Wrap(t.Context(), roottest.Key(1), nil)
	require.NoError(t, err)
}

func TestClosedRoot(t *testing.T) {
	h := newHSM(t)
	r := h.open(t, h.makeKey(t, "root"))
	w := wrap(t, r)
	r.Close(t.Context())
	r.Close(t.Context())
	require.ErrorContains(t, fails(t, r, w, root.ErrUnavailable), "closed")
}
