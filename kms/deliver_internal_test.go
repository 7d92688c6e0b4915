package kms

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestKeyslotSecretHasNoLineFeed(t *testing.T) {
	broken := bytes.Repeat([]byte{7}, keyslotSecret)
	broken[keyslotSecret-1] = '\n'
	good := bytes.Repeat([]byte{8}, keyslotSecret)
	key, err := newKeyslotSecret(bytes.NewReader(append(broken, good...)))
	require.NoError(t, err)
	assert.Equal(t, good, key.Expose())
	_, err = newKeyslotSecret(bytes.NewReader(broken))
	assert.Error(t, err, "there is no more")
}
