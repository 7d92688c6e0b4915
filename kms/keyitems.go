package kms

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"keywright.dev/kms/envelope"
	"keywright.dev/kms/exchange"
	"keywright.dev/kms/secret"
)

// PurposeApplication is that of what the key API wraps: no boot is ever released
// it, and it opens no volume.
const PurposeApplication = "application"

// keyWork is one call of the key API: its items are worked on one after the
// other, and one that fails leaves the others alone.
type keyWork struct {
	keys      *Keys
	random    func(n int) (secret.Bytes, error)
	operation exchange.KeyOperation
	keyring   string
	// machine and binding are of the machine that attested; empty for operators.
	machine string
	binding []byte

	answer exchange.KeyAnswer
	failed int
	// wrapped counts items by the versions that wrapped them, opened by those that
	// opened them, late by those that wait for their destruction.
	wrapped, opened, late map[uint32]int64
}

// itemError is why one item failed; the detail repeats nothing of the item.
type itemError struct {
	reason Reason
	detail string
}

func (e *itemError) Error() string { return string(e.reason) + ": " + e.detail }

func failItem(reason Reason, detail string) error { return &itemError{reason, detail} }

// run works on all items. Its error is of the call as a whole, such as a root
// that is away; then there is no answer.
func (w *keyWork) run(ctx context.Context, items []exchange.KeyItem) error {
	return w.keys.opened(ctx, func() error { return w.runHeld(items) })
}

// runHeld is run with the keys that are held.
func (w *keyWork) runHeld(items []exchange.KeyItem) error {
	w.answer, w.failed = exchange.KeyAnswer{}, 0
	w.wrapped, w.opened, w.late = make(map[uint32]int64), make(map[uint32]int64), make(map[uint32]int64)
	for _, item := range items {
		result := exchange.KeyResult{Reference: item.Reference}
		err := w.work(item, &result)
		var failure *itemError
		switch {
		case errors.As(err, &failure):
			w.failed++
			result.Code, result.Detail = string(failure.reason), failure.detail
		case err != nil:
			w.answer.Wipe()
			return err
		}
		w.answer.Results = append(w.answer.Results, result)
	}
	return nil
}

func (w *keyWork) work(item exchange.KeyItem, result *exchange.KeyResult) (err error) {
	if err := w.checkItem(item); err != nil {
		return err
	}
	switch w.operation {
	case exchange.KeyWrap:
		result.Wrapped, err = w.wrap(item, item.Plaintext)
	case exchange.KeyUnwrap:
		result.Plaintext, _, err = w.unwrap(item)
	case exchange.KeyRewrap:
		result.Wrapped, err = w.rewrap(item)
	default:
		err = w.dataKey(item, result)
	}
	return err
}

// checkItem wants what the operation takes, and nothing beside it.
func (w *keyWork) checkItem(item exchange.KeyItem) error {
	plaintext, wrapped := item.Plaintext.Len() > 0, item.Wrapped != ""
	switch {
	case w.operation == exchange.KeyWrap && (!plaintext || wrapped || item.Size != 0):
		return failItem(ReasonMalformed, "wrap takes a plaintext that is not empty, and nothing else")
	case w.operation == exchange.KeyDataKey && (plaintext || wrapped || !slices.Contains(dataKeySizes(), item.Size)):
		return failItem(ReasonMalformed, "data-key takes a size of 16, 32 or 64 bytes, and nothing else")
	case (w.operation == exchange.KeyUnwrap || w.operation == exchange.KeyRewrap) && (!wrapped || plaintext || item.Size != 0):
		return failItem(ReasonMalformed, string(w.operation)+" takes a wrapped form, and nothing else")
	default:
		return nil
	}
}

// dataKeySizes are the lengths that a data key can have, in bytes.
func dataKeySizes() []uint16 { return []uint16{16, 32, 64} }

// context is what an item is bound to. The caller's own part stands where a
// volume's id does: the purpose tells them apart.
func (w *keyWork) context(item exchange.KeyItem, version uint32) envelope.Context {
	return envelope.Context{
		Keyring: w.keyring, Version: version, Binding: w.binding, Machine: w.machine,
		Volume: item.Context, Purpose: PurposeApplication,
	}
}

func (w *keyWork) wrap(item exchange.KeyItem, plaintext secret.Bytes) (string, error) {
	wrapped, version, err := w.keys.Wrap(w.context(item, 0), plaintext)
	if err != nil {
		return "", fmt.Errorf("wrapping for the key API: %w", err)
	}
	w.wrapped[version]++
	return wrapped, nil
}

func (w *keyWork) unwrap(item exchange.KeyItem) (secret.Bytes, uint32, error) {
	parsed, err := envelope.Parse(item.Wrapped)
	switch {
	case err != nil:
		return secret.Bytes{}, 0, failItem(ReasonMalformed, "the wrapped form is not of the form kw1.<keyring>.<version>.<data>")
	case parsed.Keyring != w.keyring:
		return secret.Bytes{}, 0, failItem(ReasonCiphertext, "the wrapped form is another keyring's")
	}
	if err := w.checkVersion(parsed.Version); err != nil {
		return secret.Bytes{}, 0, err
	}
	plaintext, err := w.keys.Unwrap(w.context(item, parsed.Version), item.Wrapped)
	switch {
	case errors.Is(err, envelope.ErrOpen):
		return secret.Bytes{}, 0, failItem(ReasonCiphertext, "the wrapped form does not open: it is another machine's, of another context or purpose, or was altered")
	case errors.Is(err, ErrNotFound):
		return secret.Bytes{}, 0, failItem(ReasonKeyring, "the version of the keyring that wrapped it is not there")
	case err != nil:
		return secret.Bytes{}, 0, fmt.Errorf("unwrapping for the key API: %w", err)
	}
	w.opened[parsed.Version]++
	return plaintext, parsed.Version, nil
}

// checkVersion wants a version that opens. Whoever asks for one that waits for its
// destruction depends on it, as far as can be told without its key.
func (w *keyWork) checkVersion(version uint32) error {
	switch w.keys.status(keyringRef{w.keyring, version}) {
	case "": // what somebody made up asks no root
		return failItem(ReasonKeyring, "the version of the keyring that wrapped it is not there")
	case KeyringScheduled:
		w.late[version]++
		return failItem(ReasonKeyring, "the version of the keyring that wrapped it waits for its destruction: until then an operator brings it back with keywright keyring cancel-destroy")
	case KeyringDestroyed:
		return failItem(ReasonKeyring, "the version of the keyring that wrapped it is destroyed: nobody can open it any more")
	default:
		return nil
	}
}

// rewrap proves that an item opens and moves it to the current version. One that
// is there already comes back as it is.
func (w *keyWork) rewrap(item exchange.KeyItem) (string, error) {
	plaintext, version, err := w.unwrap(item)
	if err != nil {
		return "", err
	}
	defer plaintext.Wipe()
	if current, _ := w.keys.currentVersion(w.keyring); version == current {
		return item.Wrapped, nil
	}
	return w.wrap(item, plaintext)
}

func (w *keyWork) dataKey(item exchange.KeyItem, result *exchange.KeyResult) error {
	key, err := w.random(int(item.Size))
	if err != nil {
		return fmt.Errorf("making a data key: %w", err)
	}
	if result.Wrapped, err = w.wrap(item, key); err != nil {
		key.Wipe()
		return err
	}
	result.Plaintext = key
	return nil
}

// status is that of a version; empty where there is none.
func (k *Keys) status(ref keyringRef) KeyringStatus {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.versions[ref].Status
}

// currentVersion is the version of a keyring that wraps; false where there is no
// such keyring.
func (k *Keys) currentVersion(keyring string) (uint32, bool) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	version, ok := k.current[keyring]
	return version, ok
}

// record describes the call: never an item's content.
func (w *keyWork) record(d *draft, items []exchange.KeyItem) {
	d.fact("operation", "", string(w.operation))
	d.fact("keyring", "", w.keyring)
	d.fact("purpose", "", PurposeApplication)
	d.fact("items", "", strconv.Itoa(len(items)))
	d.fact("failed", "", strconv.Itoa(w.failed))
	d.fact("versions", versionList(w.opened), versionList(w.wrapped))
	if len(w.late) > 0 {
		d.fact("late", versionList(w.late), "")
	}
	d.fact("references", "", referencesDigest(items))
}

// uses are what the outcome declares: what wrapped is outside from now on, and what
// is to be unwrapped is needed there.
func (w *keyWork) uses(s *Service) []KeyringUse {
	used := maps.Clone(w.wrapped)
	maps.Copy(used, w.opened)
	maps.Copy(used, w.late)
	now := s.Clock()
	var uses []KeyringUse
	for _, v := range slices.Sorted(maps.Keys(used)) {
		uses = append(uses, KeyringUse{
			Keyring: w.keyring, Version: v, First: now, Last: now, Wraps: w.wrapped[v], Unwraps: w.opened[v] + w.late[v],
		})
	}
	return uses
}

// maxListed bounds the versions that an entry lists.
const maxListed = 100

func versionList(versions map[uint32]int64) string {
	var list []string
	for _, v := range slices.Sorted(maps.Keys(versions)) {
		if len(list) == maxListed {
			return strings.Join(list, " ") + " …"
		}
		list = append(list, strconv.FormatUint(uint64(v), 10))
	}
	return strings.Join(list, " ")
}

// referencesDigest is SHA-256 over the references in order, each behind its
// length in 32 bits: whoever has them can tell which entry is theirs.
func referencesDigest(items []exchange.KeyItem) string {
	h := sha256.New()
	for _, item := range items {
		_ = binary.Write(h, binary.BigEndian, uint32(len(item.Reference))) // never fails
		h.Write([]byte(item.Reference))
	}
	return hex.EncodeToString(h.Sum(nil))
}
