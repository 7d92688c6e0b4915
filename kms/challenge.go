package kms

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"sync"
	"time"

	"keywright.dev/kms/exchange"
	"keywright.dev/kms/secret"
)

const (
	// ChallengeTTL is how long a challenge can be redeemed.
	ChallengeTTL = 90 * time.Second

	challengeLabel  = "keywright/challenge/v1"
	credentialLabel = "keywright/credential/v1"
	challengeKeyLen = 32
	keyIDLen        = 16
	tokenLen        = keyIDLen + 8 + sha256.Size
)

// Challenge is a fresh nonce for one statement, with a token by which any
// replica recognises it without having stored it.
type Challenge struct {
	Nonce   [32]byte
	Token   []byte
	Expires time.Time
}

// challengeKey is one MAC key.
type challengeKey struct {
	id  [keyIDLen]byte
	key secret.Bytes
}

// Challenges issues and recognises challenges. It is safe for concurrent use.
type Challenges struct {
	keyStore *Keys
	clock    func() time.Time
	random   io.Reader

	// mu is held for reading while a key is used, so that none is wiped then.
	mu sync.RWMutex
	// keys holds the current key first, then the previous one, which is
	// accepted until its last challenge has expired.
	keys []challengeKey
}

// Issue makes a challenge for purpose.
func (c *Challenges) Issue(purpose exchange.Purpose) (Challenge, error) {
	var ch Challenge
	if _, err := io.ReadFull(c.random, ch.Nonce[:]); err != nil {
		return Challenge{}, fmt.Errorf("issuing a challenge: %w", err)
	}
	c.mu.RLock()
	defer c.mu.RUnlock()
	if len(c.keys) == 0 {
		return Challenge{}, fmt.Errorf("issuing a challenge: the service is closed: %w", ErrUnavailable)
	}
	key := c.keys[0]
	ch.Expires = c.clock().Add(ChallengeTTL).UTC().Truncate(time.Millisecond)
	ch.Token = append(ch.Token, key.id[:]...)
	ch.Token = binary.BigEndian.AppendUint64(ch.Token, uint64(ch.Expires.UnixMilli()))
	ch.Token = append(ch.Token, key.mac(purpose, ch.Nonce, ch.Token)...)
	return ch, nil
}

// Check recognises a challenge that was issued for purpose and has not expired,
// and returns until when it must be kept as redeemed.
func (c *Challenges) Check(purpose exchange.Purpose, nonce, token []byte) (Redemption, error) {
	if len(nonce) != 32 || len(token) != tokenLen {
		return Redemption{}, refuse(ReasonChallenge, "the challenge or its token has the wrong length")
	}
	c.mu.RLock()
	defer c.mu.RUnlock()
	key, ok := c.find(token)
	if !ok || !hmac.Equal(key.mac(purpose, [32]byte(nonce), token[:keyIDLen+8]), token[keyIDLen+8:]) {
		return Redemption{}, refuse(ReasonChallenge, "the challenge is not one of this service and step")
	}
	expires := time.UnixMilli(int64(binary.BigEndian.Uint64(token[keyIDLen:]))).UTC()
	if !c.clock().Before(expires) {
		return Redemption{}, refuse(ReasonChallenge, "the challenge has expired")
	}
	return Redemption{Challenge: [32]byte(nonce), KeepUntil: expires.Add(ChallengeTTL)}, nil
}

// credentialSecret derives what the credential of an enrolment holds, so that
// nothing about the enrolment is stored before it is proved.
func (c *Challenges) credentialSecret(token, nonce, ekName, akName []byte) (secret.Bytes, error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	key, ok := c.find(token)
	if !ok {
		return secret.Bytes{}, refuse(ReasonChallenge, "the challenge is not one of this service and step")
	}
	mac := hmac.New(sha256.New, key.key.Expose())
	mac.Write([]byte(credentialLabel))
	for _, part := range [][]byte{nonce, ekName, akName} {
		_ = binary.Write(mac, binary.BigEndian, uint32(len(part)))
		mac.Write(part)
	}
	return secret.New(mac.Sum(nil)), nil
}

// find returns the key that made a token; c.mu is held.
func (c *Challenges) find(token []byte) (challengeKey, bool) {
	for _, k := range c.keys {
		if len(token) >= keyIDLen && [keyIDLen]byte(token) == k.id {
			return k, true
		}
	}
	return challengeKey{}, false
}

// mac is HMAC-SHA256 over label, purpose, nonce, key id and expiry (the head
// of the token), and the PCR selection. All but the purpose have a fixed
// length.
func (k challengeKey) mac(purpose exchange.Purpose, nonce [32]byte, head []byte) []byte {
	selection := exchange.SelectionBitmap()
	mac := hmac.New(sha256.New, k.key.Expose())
	mac.Write([]byte(challengeLabel))
	mac.Write([]byte{0})
	mac.Write([]byte(purpose))
	mac.Write([]byte{0})
	mac.Write(nonce[:])
	mac.Write(head)
	mac.Write(selection[:])
	return mac.Sum(nil)
}
