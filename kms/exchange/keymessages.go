package exchange

import (
	"fmt"
	"unicode/utf8"

	"golang.org/x/crypto/cryptobyte"

	"keywright.dev/kms/secret"
)

// KeyOperation is what is done to each item of a [KeyRequest].
type KeyOperation string

// The operations of the key API.
const (
	KeyWrap    KeyOperation = "wrap"     // plaintext → wrapped
	KeyUnwrap  KeyOperation = "unwrap"   // wrapped → plaintext
	KeyRewrap  KeyOperation = "rewrap"   // wrapped → wrapped under the current version
	KeyDataKey KeyOperation = "data-key" // → a new key, and the same wrapped
)

// KeyOperations returns all operations.
func KeyOperations() []KeyOperation { return []KeyOperation{KeyWrap, KeyUnwrap, KeyRewrap, KeyDataKey} }

// Limits of the key API.
const (
	// MaxKeyItems bounds the items of one call.
	MaxKeyItems = 1000
	// MaxKeyPlaintext bounds the plaintext of one item, in bytes; what is larger
	// is encrypted with a data key.
	MaxKeyPlaintext = 16 << 10
	// MaxKeyTotal bounds the plaintext of one call, in bytes, so that what was
	// wrapped in one call can be unwrapped in one.
	MaxKeyTotal = 512 << 10
	// MaxKeyMessage bounds a message of either direction, in bytes.
	MaxKeyMessage = 1536 << 10
	// MaxReference bounds what the caller calls an item, and MaxKeyContext the
	// context that it is bound to, in bytes.
	MaxReference  = 128
	MaxKeyContext = 255

	keyRequestV1 = "keywright/key-request/v1"
	keyAnswerV1  = "keywright/key-answer/v1"
)

// KeyItem is one item of a call. Which fields it has depends on the operation.
type KeyItem struct {
	// Reference comes back with the result: UTF-8; may be empty.
	Reference string
	// Context is what the wrapped form is bound to beside keyring and machine:
	// without the same it does not open. It is no secret. Any bytes; may be empty.
	Context string
	// Plaintext is for wrap.
	Plaintext secret.Bytes
	// Wrapped is for unwrap and rewrap: the kw1 form.
	Wrapped string
	// Size is for data-key: bytes of the new key.
	Size uint16
}

// KeyResult is what became of the item at the same place.
type KeyResult struct {
	Reference string
	// Code and Detail say why there is nothing else; empty where all went well.
	Code, Detail string
	// Plaintext is of unwrap and data-key, Wrapped of wrap, rewrap and data-key.
	Plaintext secret.Bytes
	Wrapped   string
}

// KeyRequest is the message that a caller seals for the service.
type KeyRequest struct {
	Items []KeyItem
}

// Wipe wipes every plaintext.
func (r *KeyRequest) Wipe() {
	for _, i := range r.Items {
		i.Plaintext.Wipe()
	}
}

// KeyAnswer is the message that the service seals for the caller.
type KeyAnswer struct {
	Results []KeyResult
}

// Wipe wipes every plaintext.
func (a *KeyAnswer) Wipe() {
	for _, r := range a.Results {
		r.Plaintext.Wipe()
	}
}

// Check refuses what the service would refuse as a whole, in words for whoever
// made the request.
func (r *KeyRequest) Check() error {
	if n := len(r.Items); n == 0 || n > MaxKeyItems {
		return fmt.Errorf("it has %d items, want 1 to %d", n, MaxKeyItems)
	}
	total := 0
	for i, item := range r.Items {
		if err := item.Check(); err != nil {
			return fmt.Errorf("item %d: %w", i+1, err)
		}
		total += item.Plaintext.Len()
	}
	if total > MaxKeyTotal {
		return fmt.Errorf("its plaintexts have %d bytes, at most %d are taken in one call", total, MaxKeyTotal)
	}
	return nil
}

// Check refuses an item that is out of bounds.
func (i *KeyItem) Check() error {
	switch {
	case len(i.Reference) > MaxReference || !utf8.ValidString(i.Reference):
		return fmt.Errorf("its reference is not UTF-8 of at most %d bytes", MaxReference)
	case len(i.Context) > MaxKeyContext:
		return fmt.Errorf("its context has more than %d bytes", MaxKeyContext)
	case i.Plaintext.Len() > MaxKeyPlaintext:
		return fmt.Errorf("its plaintext has more than %d bytes: encrypt it with a data key", MaxKeyPlaintext)
	case len(i.Wrapped) > maxWrapped:
		return fmt.Errorf("its wrapped form has more than %d bytes", maxWrapped)
	default:
		return nil
	}
}

// maxWrapped is longer than the wrapped form of any plaintext that is taken.
const maxWrapped = 24 << 10

func (r *KeyRequest) marshal() (secret.Bytes, error) {
	if err := r.Check(); err != nil {
		return secret.Bytes{}, fmt.Errorf("encoding a key request: %w", err)
	}
	const fixed, fixedItem = 1 + len(keyRequestV1) + 2, 1 + 1 + 2 + 2 + 2
	room := fixed
	for _, i := range r.Items {
		room += fixedItem + len(i.Reference) + len(i.Context) + i.Plaintext.Len() + len(i.Wrapped)
	}
	return buildMessage(room, func(b *cryptobyte.Builder) {
		addText(b, keyRequestV1)
		b.AddUint16(uint16(len(r.Items)))
		for _, i := range r.Items {
			addShort(b, i.Reference)
			addShort(b, i.Context)
			addLong(b, i.Plaintext.Expose())
			addLong(b, []byte(i.Wrapped))
			b.AddUint16(i.Size)
		}
	})
}

func (a *KeyAnswer) marshal() (secret.Bytes, error) {
	if n := len(a.Results); n > MaxKeyItems {
		return secret.Bytes{}, fmt.Errorf("encoding a key answer: it has %d results, at most %d are allowed", n, MaxKeyItems)
	}
	const fixed, fixedResult = 1 + len(keyAnswerV1) + 2, 1 + 1 + 1 + 2 + 2
	room := fixed
	for _, r := range a.Results {
		room += fixedResult + len(r.Reference) + len(r.Code) + len(r.Detail) + r.Plaintext.Len() + len(r.Wrapped)
	}
	return buildMessage(room, func(b *cryptobyte.Builder) {
		addText(b, keyAnswerV1)
		b.AddUint16(uint16(len(a.Results)))
		for _, r := range a.Results {
			addShort(b, r.Reference)
			addShort(b, r.Code)
			addShort(b, r.Detail)
			addLong(b, r.Plaintext.Expose())
			addLong(b, []byte(r.Wrapped))
		}
	})
}

// buildMessage builds in one buffer: growing would leave copies of keys behind.
func buildMessage(room int, build func(*cryptobyte.Builder)) (secret.Bytes, error) {
	if room > MaxKeyMessage {
		return secret.Bytes{}, fmt.Errorf("encoding a message of the key API: it has %d bytes, at most %d are allowed", room, MaxKeyMessage)
	}
	buffer := secret.New(make([]byte, room))
	b := cryptobyte.NewFixedBuilder(buffer.Expose()[:0])
	build(b)
	out, err := b.Bytes()
	if err != nil {
		buffer.Wipe()
		return secret.Bytes{}, fmt.Errorf("encoding a message of the key API: %w", err)
	}
	return secret.New(out), nil
}

// addShort adds at most 255 bytes behind an 8-bit length, without a buffer of
// its own.
func addShort(b *cryptobyte.Builder, text string) {
	b.AddUint8(uint8(min(len(text), maxText)))
	b.AddBytes([]byte(text))
}

// addLong adds bytes behind a 16-bit length, likewise.
func addLong(b *cryptobyte.Builder, data []byte) {
	b.AddUint16(uint16(len(data)))
	b.AddBytes(data)
}

// parseKeyRequest decodes a message. The plaintexts are copies: the caller wipes
// the message. Its error is [ErrMalformed].
func parseKeyRequest(message secret.Bytes) (*KeyRequest, error) {
	var r KeyRequest
	in := cryptobyte.String(message.Expose())
	if !r.read(&in) || !in.Empty() || r.Check() != nil {
		r.Wipe()
		return nil, fmt.Errorf("%w key request", ErrMalformed)
	}
	return &r, nil
}

func (r *KeyRequest) read(in *cryptobyte.String) bool {
	var label string
	var count uint16
	ok := readText(in, &label) && label == keyRequestV1 && in.ReadUint16(&count) && count <= MaxKeyItems
	for range count {
		var i KeyItem
		var plaintext, wrapped cryptobyte.String
		if ok = ok && readText(in, &i.Reference) && readText(in, &i.Context) &&
			in.ReadUint16LengthPrefixed(&plaintext) && in.ReadUint16LengthPrefixed(&wrapped) && in.ReadUint16(&i.Size); !ok {
			return false
		}
		i.Plaintext, i.Wrapped = secret.Copy(plaintext), string(wrapped)
		r.Items = append(r.Items, i)
	}
	return ok
}

// parseKeyAnswer decodes a message, as parseKeyRequest does.
func parseKeyAnswer(message secret.Bytes) (*KeyAnswer, error) {
	var a KeyAnswer
	in := cryptobyte.String(message.Expose())
	if !a.read(&in) || !in.Empty() {
		a.Wipe()
		return nil, fmt.Errorf("%w key answer", ErrMalformed)
	}
	return &a, nil
}

func (a *KeyAnswer) read(in *cryptobyte.String) bool {
	var label string
	var count uint16
	ok := readText(in, &label) && label == keyAnswerV1 && in.ReadUint16(&count) && count <= MaxKeyItems
	for range count {
		var r KeyResult
		var plaintext, wrapped cryptobyte.String
		if ok = ok && readText(in, &r.Reference) && readText(in, &r.Code) && readText(in, &r.Detail) &&
			in.ReadUint16LengthPrefixed(&plaintext) && in.ReadUint16LengthPrefixed(&wrapped); !ok {
			return false
		}
		r.Plaintext, r.Wrapped = secret.Copy(plaintext), string(wrapped)
		a.Results = append(a.Results, r)
	}
	return ok
}
