package kms

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"time"

	"keywright.dev/kms/secret"
)

// ChallengeKeyLifetime is how long a challenge key is used before the next.
const ChallengeKeyLifetime = 24 * time.Hour

// OpenChallenges loads the challenge keys, or makes the first one.
func OpenChallenges(ctx context.Context, keys *Keys, clock func() time.Time, random io.Reader) (*Challenges, error) {
	c := &Challenges{keyStore: keys, clock: clock, random: random}
	_, private, err := keys.ServiceKey(ctx, ServiceKeyChallenge, c.newKey)
	if err != nil {
		return nil, err
	}
	private.Wipe()
	if err := c.load(ctx); err != nil {
		return nil, err
	}
	return c, nil
}

// Restored tells whether the store was made from a backup and not opened since:
// backups hold every service key but the challenge keys. It must be asked before
// [OpenChallenges].
func (k *Keys) Restored(ctx context.Context) (bool, error) {
	keys, err := k.Store.ServiceKeys(ctx)
	if err != nil {
		return false, fmt.Errorf("reading the service's keys: %w", err)
	}
	challenge := func(s ServiceKey) bool { return s.Kind == ServiceKeyChallenge }
	return len(keys) > 0 && !slices.ContainsFunc(keys, challenge), nil
}

// RotateIfDue replaces the current key once it is older than
// [ChallengeKeyLifetime].
func (c *Challenges) RotateIfDue(ctx context.Context) error {
	rows, err := c.keyStore.serviceKeys(ctx, ServiceKeyChallenge)
	if err != nil {
		return err
	}
	if len(rows) > 0 && c.clock().Sub(rows[0].Created) < ChallengeKeyLifetime {
		return c.load(ctx)
	}
	return c.rotate(ctx, rows)
}

// rotate adds a key. Only the newest old one stays, for the challenges that it
// issued just now; older ones have expired.
func (c *Challenges) rotate(ctx context.Context, rows []ServiceKey) error {
	_, private, err := c.keyStore.AddServiceKey(ctx, ServiceKeyChallenge, c.newKey, rows[min(1, len(rows)):])
	if err != nil {
		return err
	}
	private.Wipe()
	return c.load(ctx)
}

// load reads the keys that are accepted: the newest, and the one before it for
// as long as a challenge of it can be valid.
func (c *Challenges) load(ctx context.Context) error {
	rows, err := c.keyStore.serviceKeys(ctx, ServiceKeyChallenge)
	if err != nil {
		return err
	}
	accepted := rows[:min(1, len(rows))]
	if len(rows) > 1 && c.clock().Sub(rows[0].Created) <= ChallengeTTL {
		accepted = rows[:2]
	}
	return c.hold(ctx, accepted)
}

// hold opens the keys of rows and wipes those that it held before.
func (c *Challenges) hold(ctx context.Context, rows []ServiceKey) error {
	var keys []challengeKey
	for _, row := range rows {
		key, err := c.open(ctx, row)
		if err != nil {
			wipeKeys(keys)
			return err
		}
		keys = append(keys, key)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	wipeKeys(c.keys)
	c.keys = keys
	return nil
}

// Wipe wipes the keys; nothing is issued or recognised after it.
func (c *Challenges) Wipe() { _ = c.hold(context.Background(), nil) }

func wipeKeys(keys []challengeKey) {
	for _, k := range keys {
		k.key.Wipe()
	}
}

func (c *Challenges) open(ctx context.Context, row ServiceKey) (challengeKey, error) {
	id, err := hex.DecodeString(row.ID)
	if err != nil || len(id) != keyIDLen {
		return challengeKey{}, fmt.Errorf("opening the service's challenge key: its id is not %d bytes in hex", keyIDLen)
	}
	private, err := c.keyStore.openServiceKey(ctx, row)
	if err != nil {
		return challengeKey{}, err
	}
	return challengeKey{[keyIDLen]byte(id), private}, nil
}

func (c *Challenges) newKey() (id string, public []byte, private secret.Bytes, err error) {
	raw := make([]byte, keyIDLen)
	if _, err := io.ReadFull(c.random, raw); err != nil {
		return "", nil, secret.Bytes{}, fmt.Errorf("reading random bytes: %w", err)
	}
	private, err = secret.Random(c.random, challengeKeyLen)
	return hex.EncodeToString(raw), nil, private, err
}
