package exchange

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/secret"
)

func someItems() []KeyItem {
	return []KeyItem{
		{Reference: "a", Context: "\x00\xff", Plaintext: secret.Copy([]byte("one"))},
		{Reference: "ü", Wrapped: "kw1.default.1.AAAA"},
		{Size: 32},
	}
}

func someResults() []KeyResult {
	return []KeyResult{
		{Reference: "a", Wrapped: "kw1.default.1.AAAA", Plaintext: secret.Copy([]byte("one"))},
		{Reference: "b", Code: "ciphertext", Detail: "it does not open"},
		{},
	}
}

func TestKeyMessagesComeBack(t *testing.T) {
	request := KeyRequest{Items: someItems()}
	message, err := request.marshal()
	require.NoError(t, err)
	parsed, err := parseKeyRequest(message)
	require.NoError(t, err)
	require.Len(t, parsed.Items, 3)
	for i, item := range request.Items {
		assert.True(t, item.Plaintext.Equal(parsed.Items[i].Plaintext))
		item.Plaintext, parsed.Items[i].Plaintext = secret.Bytes{}, secret.Bytes{}
		assert.Equal(t, item, parsed.Items[i])
	}
	answer := KeyAnswer{Results: someResults()}
	message, err = answer.marshal()
	require.NoError(t, err)
	opened, err := parseKeyAnswer(message)
	require.NoError(t, err)
	require.Len(t, opened.Results, 3)
	assert.True(t, answer.Results[0].Plaintext.Equal(opened.Results[0].Plaintext))
	assert.Equal(t, "it does not open", opened.Results[1].Detail)
}

func TestKeyRequestsOutOfBounds(t *testing.T) {
	big := func(n int) secret.Bytes { return secret.New(make([]byte, n)) }
	for want, items := range map[string][]KeyItem{
		"0 items":                    nil,
		"1001 items":                 make([]KeyItem, MaxKeyItems+1),
		"item 1: its reference":      {{Reference: strings.Repeat("r", MaxReference+1)}},
		"item 2: its reference":      {{}, {Reference: "\xff"}},
		"item 1: its context":        {{Context: strings.Repeat("c", MaxKeyContext+1)}},
		"encrypt it with a data key": {{Plaintext: big(MaxKeyPlaintext + 1)}},
		"its wrapped form has more":  {{Wrapped: strings.Repeat("w", maxWrapped+1)}},
		"have 540672 bytes":          slices.Repeat([]KeyItem{{Plaintext: big(MaxKeyPlaintext)}}, 33),
	} {
		r := KeyRequest{Items: items}
		require.ErrorContains(t, r.Check(), want)
		_, err := r.marshal()
		require.ErrorContains(t, err, want)
	}
	full := KeyRequest{Items: slices.Repeat([]KeyItem{{Plaintext: big(MaxKeyPlaintext)}}, 32)}
	require.NoError(t, full.Check())
	most := KeyRequest{Items: slices.Repeat([]KeyItem{{
		Reference: strings.Repeat("r", MaxReference), Context: strings.Repeat("c", MaxKeyContext), Plaintext: big(MaxKeyTotal / MaxKeyItems),
	}}, MaxKeyItems)}
	_, err := most.marshal()
	require.NoError(t, err, "as much as one call takes fits")
}

func TestKeyAnswersOutOfBounds(t *testing.T) {
	_, err := (&KeyAnswer{Results: make([]KeyResult, MaxKeyItems+1)}).marshal()
	require.ErrorContains(t, err, "1001 results")
	_, err = (&KeyAnswer{Results: slices.Repeat([]KeyResult{{Wrapped: strings.Repeat("w", maxWrapped)}}, 100)}).marshal()
	require.ErrorContains(t, err, "at most")
}

func TestKeyMessagesCutOrLonger(t *testing.T) {
	request := KeyRequest{Items: someItems()}
	message, err := request.marshal()
	require.NoError(t, err)
	for i := range message.Len() {
		_, err := parseKeyRequest(secret.Copy(message.Expose()[:i]))
		require.ErrorIs(t, err, ErrMalformed)
	}
	_, err = parseKeyRequest(secret.Copy(append(message.Expose()[:message.Len():message.Len()], 0)))
	require.ErrorIs(t, err, ErrMalformed)
}

// A sealed request and its answer serve one call alone.
func TestKeyCallsAreSealedApart(t *testing.T) {
	seed := func(b byte) secret.Bytes { return secret.New(append(make([]byte, 31), b)) }
	service, err := DeriveRecipient(seed(1))
	require.NoError(t, err)
	request := &KeyRequest{Items: someItems()}
	call, err := NewKeyCall([32]byte{1}, service.PublicKey(), KeyWrap, "default", request)
	require.NoError(t, err)
	details, err := ParseDetails[KeyDetails](call.Statement.Details)
	require.NoError(t, err)
	again, err := DeriveRecipient(seed(1))
	require.NoError(t, err)
	opened, err := again.OpenKeyRequest(&call.Statement, details, call.Sealed)
	require.NoError(t, err, "any replica can derive the key")
	require.Len(t, opened.Items, 3)

	for name, change := range map[string]func(s *Statement, d *KeyDetails, sealed *[]byte, r **Recipient){
		"challenge": func(s *Statement, _ *KeyDetails, _ *[]byte, _ **Recipient) { s.Challenge[0]++ },
		"recipient": func(s *Statement, _ *KeyDetails, _ *[]byte, _ **Recipient) { s.Recipient[0]++ },
		"operation": func(_ *Statement, d *KeyDetails, _ *[]byte, _ **Recipient) { d.Operation = KeyUnwrap },
		"keyring":   func(_ *Statement, d *KeyDetails, _ *[]byte, _ **Recipient) { d.Keyring = "prod" },
		"hash":      func(_ *Statement, d *KeyDetails, _ *[]byte, _ **Recipient) { d.Request = nil },
		"sealed":    func(_ *Statement, _ *KeyDetails, sealed *[]byte, _ **Recipient) { (*sealed)[0]++ },
		"service": func(_ *Statement, _ *KeyDetails, _ *[]byte, r **Recipient) {
			*r, _ = DeriveRecipient(seed(2))
		},
	} {
		s, d, sealed, r := call.Statement, details, slices.Clone(call.Sealed), service
		s.Recipient = slices.Clone(s.Recipient)
		change(&s, &d, &sealed, &r)
		_, err := r.OpenKeyRequest(&s, d, sealed)
		require.Error(t, err, name)
	}

	statement, err := call.Statement.Marshal()
	require.NoError(t, err)
	recipient, err := ParseRecipientKey(call.Statement.Recipient)
	require.NoError(t, err)
	results := someResults()
	results[0].Reference, results[1].Reference = "a", "ü"
	response, err := SealKeyAnswer(recipient, statement, &KeyAnswer{Results: results})
	require.NoError(t, err)
	_, err = call.Open(statement, response, request)
	require.NoError(t, err)
	_, err = call.Open(append(statement, 0), response, request)
	require.ErrorIs(t, err, ErrKeyOpen)

	reordered := []KeyResult{results[1], results[0], results[2]}
	for _, wrong := range [][]KeyResult{reordered, results[:2], append(results, KeyResult{})} {
		response, err = SealKeyAnswer(recipient, statement, &KeyAnswer{Results: wrong})
		require.NoError(t, err)
		_, err = call.Open(statement, response, request)
		require.ErrorIs(t, err, ErrMalformed)
	}
}

// FuzzParseKeyRequest holds that what parses marshals again to the same bytes.
func FuzzParseKeyRequest(f *testing.F) {
	message, err := (&KeyRequest{Items: someItems()}).marshal()
	require.NoError(f, err)
	f.Add(message.Expose())
	f.Add([]byte("\x18" + keyRequestV1 + "\x00\x00"))
	f.Add([]byte("\x18" + keyRequestV1 + "\xff\xff"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := parseKeyRequest(secret.Copy(data))
		if err != nil {
			require.ErrorIs(t, err, ErrMalformed)
			return
		}
		again, err := r.marshal()
		require.NoError(t, err)
		assert.Equal(t, data, again.Expose())
	})
}

// FuzzParseKeyAnswer likewise.
func FuzzParseKeyAnswer(f *testing.F) {
	message, err := (&KeyAnswer{Results: someResults()}).marshal()
	require.NoError(f, err)
	f.Add(message.Expose())
	f.Add([]byte("\x17" + keyAnswerV1 + "\x00\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := parseKeyAnswer(secret.Copy(data))
		if err != nil {
			require.ErrorIs(t, err, ErrMalformed)
			return
		}
		again, err := a.marshal()
		if err != nil {
			assert.Greater(t, len(data), MaxKeyMessage)
			return
		}
		assert.Equal(t, data, again.Expose())
	})
}
