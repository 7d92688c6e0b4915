package vault

import (
	"context"
	"encoding/json"
	"errors"
	"sync"

	"github.com/hashicorp/vault/api"

	"keywright.dev/kms/root"
	"keywright.dev/kms/secret"
)

// keeper renews the token of a file, which nobody may use for longer than it
// lasts: the service asks its root a few times a day.
type keeper struct {
	root *Root
	ctx  context.Context //nolint:containedctx // ends what it does in the background
	stop context.CancelFunc

	mu    sync.Mutex
	kept  secret.Bytes // the token that is looked after
	watch context.CancelFunc
}

func newKeeper(ctx context.Context, r *Root) *keeper {
	ctx, stop := context.WithCancel(ctx)
	return &keeper{root: r, ctx: ctx, stop: stop, watch: func() {}}
}

func (k *keeper) close() {
	k.stop()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.kept.Wipe()
}

// keep sees to it that the token is renewed, and no longer the one before.
func (k *keeper) keep(token secret.Bytes) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if token.Equal(k.kept) || k.ctx.Err() != nil {
		return
	}
	k.watch()
	ctx, cancel := context.WithCancel(k.ctx)
	k.kept.Wipe()
	k.kept, k.watch = token.Clone(), cancel
	go k.renew(ctx, token.Clone())
}

// forget has the next use of the token begin anew.
func (k *keeper) forget(token secret.Bytes) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if token.Equal(k.kept) {
		k.kept.Wipe()
	}
}

// renew renews until Vault does not prolong the token any more, or ctx ends. The
// next use of the token begins anew. It wipes the token, which is its own.
// What fails here is not told: the token ends, and calls say so.
func (k *keeper) renew(ctx context.Context, token secret.Bytes) {
	defer token.Wipe()
	lease, err := k.lookUp(ctx, token)
	if err != nil && errors.Is(err, root.ErrUnavailable) {
		k.forget(token)
	}
	if err != nil || lease.LeaseDuration <= 0 || !lease.Renewable {
		return
	}
	lease.ClientToken = string(token.Expose())
	watcher, err := k.root.as(token).NewLifetimeWatcher(&api.LifetimeWatcherInput{Secret: &api.Secret{Auth: &lease}})
	if err != nil {
		return
	}
	defer context.AfterFunc(ctx, watcher.Stop)()
	watcher.Start()
	// It ends before the token does, whether that can be renewed no more or Vault is away.
	k.forget(token)
}

func (k *keeper) lookUp(ctx context.Context, token secret.Bytes) (api.SecretAuth, error) {
	answer, err := k.root.send(ctx, token, request{"GET", "auth/token/lookup-self", secret.Bytes{}})
	if err != nil {
		return api.SecretAuth{}, err
	}
	defer answer.Wipe()
	var read struct {
		Data struct {
			TTL       int  `json:"ttl"` // in seconds; 0 for ever
			Renewable bool `json:"renewable"`
		} `json:"data"`
	}
	if json.Unmarshal(answer.Expose(), &read) != nil {
		return api.SecretAuth{}, malformed("it is not in JSON")
	}
	return api.SecretAuth{LeaseDuration: read.Data.TTL, Renewable: read.Data.Renewable}, nil
}
