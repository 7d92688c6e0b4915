package luks_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/unlock/luks"
)

const goodToken = `{"type":"keywright","keyslots":["1"],"version":1,"volume":"vol-a","resume":"res-a","secret":1,"slot":"1"}`

const recoveryToken = `{"type":"keywright","keyslots":["2"],"version":1,"volume":"vol-a","resume":"res-a","secret":1,"slot":"2","purpose":"recovery"}`

func TestTokenRoundTrip(t *testing.T) {
	token, err := luks.ParseToken([]byte(goodToken))
	require.NoError(t, err)
	assert.Equal(t, luks.Token{Volume: "vol-a", Resume: "res-a", Version: 1, Slot: 1, Keyslots: []int{1}}, token)
	text, err := token.Encode()
	require.NoError(t, err)
	sameText(t, goodToken, text)

	token, err = luks.ParseToken([]byte(recoveryToken))
	require.NoError(t, err)
	assert.Equal(t, luks.Token{Volume: "vol-a", Resume: "res-a", Purpose: luks.PurposeRecovery, Version: 1, Slot: 2, Keyslots: []int{2}}, token)
	text, err = token.Encode()
	require.NoError(t, err)
	sameText(t, recoveryToken, text)

	text, err = luks.Token{Volume: "v", Resume: "r", Version: 4294967295, Slot: 31}.Encode()
	require.NoError(t, err)
	sameText(t, `{"type":"keywright","keyslots":[],"version":1,"volume":"v","resume":"r","secret":4294967295,"slot":"31"}`, text)
}

func TestTokenRefusals(t *testing.T) {
	for name, text := range map[string]string{
		"another type":      `{"type":"clevis","keyslots":[],"version":1,"volume":"v","resume":"r","secret":1,"slot":"1"}`,
		"another version":   `{"type":"keywright","keyslots":[],"version":2,"volume":"v","resume":"r","secret":1,"slot":"1"}`,
		"no version":        `{"type":"keywright","keyslots":[],"volume":"v","resume":"r","secret":1,"slot":"1"}`,
		"no keyslots":       `{"type":"keywright","version":1,"volume":"v","resume":"r","secret":1,"slot":"1"}`,
		"two keyslots":      `{"type":"keywright","keyslots":["1","2"],"version":1,"volume":"v","resume":"r","secret":1,"slot":"1"}`,
		"no slot":           `{"type":"keywright","keyslots":[],"version":1,"volume":"v","resume":"r"}`,
		"slot is a number":  `{"type":"keywright","keyslots":[],"version":1,"volume":"v","resume":"r","secret":1,"slot":1}`,
		"slot out of range": `{"type":"keywright","keyslots":[],"version":1,"volume":"v","resume":"r","secret":1,"slot":"32"}`,
		"slot negative":     `{"type":"keywright","keyslots":[],"version":1,"volume":"v","resume":"r","secret":1,"slot":"-1"}`,
		"no volume":         `{"type":"keywright","keyslots":[],"version":1,"resume":"r","secret":1,"slot":"1"}`,
		"no resume":         `{"type":"keywright","keyslots":[],"version":1,"volume":"v","slot":"1"}`,
		"no secret":         `{"type":"keywright","keyslots":[],"version":1,"volume":"v","resume":"r","slot":"1"}`,
		"secret 0":          `{"type":"keywright","keyslots":[],"version":1,"volume":"v","resume":"r","secret":0,"slot":"1"}`,
		"secret is text":    `{"type":"keywright","keyslots":[],"version":1,"volume":"v","resume":"r","secret":"1","slot":"1"}`,
		"secret of 33 bits": `{"type":"keywright","keyslots":[],"version":1,"volume":"v","resume":"r","secret":4294967296,"slot":"1"}`,
		"volume with space": `{"type":"keywright","keyslots":[],"version":1,"volume":"v a","resume":"r","secret":1,"slot":"1"}`,
		"unknown member":    `{"type":"keywright","keyslots":[],"version":1,"volume":"v","resume":"r","secret":1,"slot":"1","key":"x"}`,
		"empty purpose":     `{"type":"keywright","keyslots":[],"version":1,"volume":"v","resume":"r","secret":1,"slot":"1","purpose":""}`,
		"another purpose":   `{"type":"keywright","keyslots":[],"version":1,"volume":"v","resume":"r","secret":1,"slot":"1","purpose":"boot"}`,
		"purpose is a list": `{"type":"keywright","keyslots":[],"version":1,"volume":"v","resume":"r","secret":1,"slot":"1","purpose":["recovery"]}`,
		"duplicate member":  `{"type":"keywright","keyslots":[],"version":1,"volume":"v","volume":"w","resume":"r","secret":1,"slot":"1"}`,
		"other letter case": `{"type":"keywright","keyslots":[],"version":1,"Volume":"v","resume":"r","secret":1,"slot":"1"}`,
		"text behind":       goodToken + "{}",
		"not an object":     `[]`,
		"empty":             ``,
	} {
		_, err := luks.ParseToken([]byte(text))
		assert.Error(t, err, name)
	}
	for name, token := range map[string]luks.Token{
		"no volume":    {Resume: "r", Version: 1},
		"dot in id":    {Volume: "a.b", Resume: "r", Version: 1},
		"slot":         {Volume: "v", Resume: "r", Version: 1, Slot: 32},
		"keyslot":      {Volume: "v", Resume: "r", Version: 1, Keyslots: []int{-1}},
		"two keyslots": {Volume: "v", Resume: "r", Version: 1, Keyslots: []int{1, 2}},
		"purpose":      {Volume: "v", Resume: "r", Version: 1, Purpose: "boot"},
		"no secret":    {Volume: "v", Resume: "r"},
	} {
		_, err := token.Encode()
		assert.Error(t, err, name)
	}
}

func withToken(t *testing.T, text string) *luks.Volume {
	v, err := baseImage(t).replace(t, goodToken, text).validate()
	require.NoError(t, err)
	return v
}

func token(keyslots, slot string) string {
	return fmt.Sprintf(`{"type":"keywright","keyslots":[%s],"version":1,"volume":"vol-a","resume":"res-a","secret":1,"slot":"%s"}`, keyslots, slot)
}

func TestOwnSlots(t *testing.T) {
	assert.Equal(t, []int{1}, withToken(t, goodToken).OwnSlots("vol-a"))
	assert.Empty(t, withToken(t, goodToken).OwnSlots("vol-b"))
	assert.Empty(t, withToken(t, token("", "1")).OwnSlots("vol-a"), "intended is not assigned")
	// cryptsetup renumbers keyslots when it reencrypts; the assignment counts.
	assert.Equal(t, []int{1}, withToken(t, token(`"1"`, "5")).OwnSlots("vol-a"))
}

// What boots open and what people open is told apart.
func TestSlotsForAPurpose(t *testing.T) {
	both := goodToken + `,"1":` + recoveryToken
	v := withToken(t, strings.ReplaceAll(both, `["2"]`, `["0"]`))
	assert.Equal(t, []int{1}, v.OwnSlots("vol-a"))
	assert.Equal(t, []int{0}, v.SlotsFor("vol-a", luks.PurposeRecovery))
	assert.Empty(t, v.SlotsFor("vol-b", luks.PurposeRecovery))
	tokens := v.Inventory().Tokens
	assert.Empty(t, tokens[0].Purpose)
	assert.Equal(t, luks.PurposeRecovery, tokens[1].Purpose)
}
