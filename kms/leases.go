package kms

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"keywright.dev/kms/root"
	"keywright.dev/kms/secret"
)

const (
	// DefaultLease is how long boots go on without any root.
	DefaultLease = 24 * time.Hour
	// MinLease keeps roots from being asked all the time.
	MinLease = time.Minute

	// openTimeout bounds the opening of one version by all its roots.
	openTimeout = 10 * time.Second
	// openPause is how long a version that did not open is not tried again: boots
	// that wait for it would otherwise ask roots one after the other.
	openPause = 2 * time.Second
)

// lease is a key that may be used until an uptime, however the wall clock is set.
type lease struct {
	key   secret.Bytes
	until time.Duration
	root  string // that opened it
}

// openFailure is why a version did not open, and until when it is not tried.
type openFailure struct {
	err   error
	until time.Duration
}

// held returns a key under a lease that has not ended. The caller holds the lock
// for as long as it uses the key.
func (k *Keys) held(ref keyringRef) (secret.Bytes, error) {
	l, ok := k.leases[ref]
	if ok && k.Uptime() < l.until {
		return l.key, nil
	}
	if f := k.failures[ref]; f.forGood() && k.Uptime() < f.until {
		return secret.Bytes{}, f.err
	}
	return secret.Bytes{}, &ClosedError{ref.name, ref.version}
}

// forGood tells that a later try will do no better: a row names a version that
// never was, or no root has a wrapper that opens.
func (f openFailure) forGood() bool { return f.err != nil && !errors.Is(f.err, ErrUnavailable) }

func (k *Keys) holds(ref keyringRef) bool {
	k.mu.RLock()
	defer k.mu.RUnlock()
	_, err := k.held(ref)
	return err == nil
}

// keep begins a lease. Where one runs already, key must be the same. Where leases
// were dropped since an epoch, in which a root was asked, none begins: whoever
// needs the key asks again.
func (k *Keys) keep(ref keyringRef, key secret.Bytes, by string, since uint64) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.epoch != since {
		key.Wipe()
		return nil
	}
	before, ok := k.leases[ref]
	if ok && !before.key.Equal(key) {
		key.Wipe()
		return fmt.Errorf("opening %v: %s opened another key than was held", ref, by)
	}
	before.key.Wipe()
	k.leases[ref] = lease{key, k.Uptime() + k.Lease, by}
	delete(k.failures, ref)
	return nil
}

// Open has a root open a version that is not held. Calls that come meanwhile share
// one opening, and for a moment after one that failed its error.
func (k *Keys) Open(ctx context.Context, keyring string, version uint32) error {
	return k.open(ctx, keyringRef{keyring, version})
}

func (k *Keys) open(ctx context.Context, ref keyringRef) error {
	k.mu.RLock()
	_, err := k.held(ref)
	failed := k.failures[ref]
	k.mu.RUnlock()
	switch {
	case err == nil:
		return nil
	case k.Uptime() < failed.until:
		return failed.err
	}
	return k.ask(ctx, ref, false)
}

// maxOpened bounds the versions that one piece of work turns out to need.
const maxOpened = 8

// opened runs work, and runs it again once a keyring version is open that it
// turned out to need, or is known never to open: work learns that then.
func (k *Keys) opened(ctx context.Context, work func() error) (err error) {
	for range maxOpened {
		err = work()
		var closed *ClosedError
		if !errors.As(err, &closed) {
			return err
		}
		if err := k.Open(ctx, closed.Keyring, closed.Version); errors.Is(err, ErrUnavailable) {
			return err
		}
	}
	return err
}

// ask has a root open a version: one that is held only where its lease is to begin
// anew. An error ends no lease.
func (k *Keys) ask(ctx context.Context, ref keyringRef, anew bool) error {
	opened := k.flights.DoChan(ref.String(), func() (any, error) {
		// Who asked first may go away, and the others still wait.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), openTimeout)
		defer cancel()
		if !anew && k.holds(ref) {
			return nil, nil //nolint:nilnil // another opening has ended just now
		}
		err := k.openByRoots(ctx, ref)
		if err != nil {
			k.mu.Lock()
			k.failures[ref] = openFailure{err, k.Uptime() + openPause}
			k.mu.Unlock()
		}
		return nil, err
	})
	select {
	case result := <-opened:
		return result.Err
	case <-ctx.Done():
		return fmt.Errorf("opening %v: %w", ref, errors.Join(ErrUnavailable, ctx.Err()))
	}
}

// openByRoots asks the roots of a version, one beside the other: a root that does
// not answer must not hide one that does.
func (k *Keys) openByRoots(ctx context.Context, ref keyringRef) error {
	v, err := k.version(ctx, ref)
	if err != nil {
		return err
	}
	wrappers := k.wrappersOf(v)
	if len(wrappers) == 0 {
		return &rootsError{fmt.Errorf("opening %v: no configured root has a wrapper of it; it is wrapped by %v", ref, wrappedBy(v)), ErrRootsRefuse}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	return k.race(ctx, ref, wrappers, k.leaseEpoch())
}

// headStart is how long a root has to answer before the next is asked as well.
const headStart = time.Second

// opening is what a root answered.
type opening struct {
	key secret.Bytes
	by  string
	err error
}

func (k *Keys) race(ctx context.Context, ref keyringRef, wrappers []rootWrapper, epoch uint64) error {
	answers := make(chan opening, len(wrappers))
	pending := 0
	defer func() { wipeLate(answers, pending) }()
	var errs []error
	for i, w := range wrappers {
		pending++
		go func() {
			key, err := w.root.Unwrap(ctx, w.wrapped, keyringContext(ref.name, ref.version))
			answers <- opening{key, w.root.URI(), err}
		}()
		for pending > 0 {
			a, ok := await(ctx, answers, i+1 < len(wrappers))
			if !ok {
				break
			}
			pending--
			if a.err == nil {
				return k.keep(ref, a.key, a.by, epoch)
			}
			errs = append(errs, a.err)
		}
	}
	return fmt.Errorf("opening %v: %w", ref, joinRoots(errs))
}

// await waits for an answer; where there is another root to ask, not for long.
func await(ctx context.Context, answers <-chan opening, another bool) (a opening, ok bool) {
	if !another {
		return <-answers, true // a root's call ends with its context
	}
	ctx, cancel := context.WithTimeout(ctx, headStart)
	defer cancel()
	select {
	case a = <-answers:
		return a, true
	case <-ctx.Done():
		return a, false
	}
}

// wipeLate wipes what roots answer that were too late.
func wipeLate(answers <-chan opening, pending int) {
	for range pending {
		go func() {
			late := <-answers
			late.key.Wipe()
		}()
	}
}

// joinRoots makes one error of several roots'. One root that may answer later is
// enough to try again.
func joinRoots(errs []error) error {
	err := errors.Join(errs...)
	if errors.Is(err, root.ErrUnavailable) {
		return &rootsError{err, ErrRoots}
	}
	return &rootsError{err, ErrRootsRefuse}
}

// rootsError means that no root opened a version, and by its class whether one may
// do later.
type rootsError struct{ cause, class error }

func (e *rootsError) Error() string { return e.cause.Error() }

// Unwrap returns [ErrRoots] or [ErrRootsRefuse] as well.
func (e *rootsError) Unwrap() []error { return []error{e.cause, e.class} }

// Upkeep renews each lease that is half over, opens what is not open, and wipes
// what has ended. It returns what did not open; [Service.TendKeyrings] calls it.
func (k *Keys) Upkeep(ctx context.Context) error {
	k.wipeEnded()
	epoch, err := k.Store.LeaseEpoch(ctx)
	if err != nil {
		return fmt.Errorf("keeping up the leases: %w", err)
	}
	k.Epoch(epoch)
	if err := k.reload(ctx); err != nil {
		return err
	}
	return openAll(k.due(), func(ref keyringRef) error { return k.ask(ctx, ref, true) })
}

// openAtOnce bounds the versions that roots are asked for together. One after the
// other, roots that hang would hold up the upkeep by the whole time of each.
const openAtOnce = 4

// openAll opens versions, and returns what did not open.
func openAll(refs []keyringRef, open func(keyringRef) error) error {
	errs := make([]error, len(refs))
	var group errgroup.Group
	group.SetLimit(openAtOnce)
	for i, ref := range refs {
		group.Go(func() error {
			errs[i] = open(ref)
			return nil
		})
	}
	_ = group.Wait() // each error is in its place
	return errors.Join(errs...)
}

// due returns the versions in use to open now, in their order: those that are not
// held, and those whose lease is half over.
func (k *Keys) due() []keyringRef {
	k.mu.RLock()
	defer k.mu.RUnlock()
	limit := k.Uptime() + k.Lease/2
	return slices.DeleteFunc(sortedRefs(k.versions), func(ref keyringRef) bool {
		l, ok := k.leases[ref]
		v := k.versions[ref]
		return !v.Status.opens() || ok && l.until > limit
	})
}

// usable returns the key of a version that is used at all.
func (k *Keys) usable(ref keyringRef) (secret.Bytes, error) {
	if v, ok := k.versions[ref]; ok && !v.Status.opens() {
		return secret.Bytes{}, fmt.Errorf("%v is %s: %w", ref, v.Status, ErrNotFound)
	}
	return k.held(ref)
}

func (k *Keys) wipeEnded() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for ref, l := range k.leases {
		if k.Uptime() >= l.until {
			l.key.Wipe()
			delete(k.leases, ref)
		}
	}
	maps.DeleteFunc(k.failures, func(ref keyringRef, _ openFailure) bool {
		_, known := k.versions[ref]
		return !known
	})
}

// leaseEpoch returns the epoch of the leases that begin now.
func (k *Keys) leaseEpoch() uint64 {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.epoch
}

// Epoch holds the leases against the store's epoch, which a transaction has read:
// where an operator dropped them since, they end here too.
func (k *Keys) Epoch(epoch uint64) {
	if k.leaseEpoch() == epoch {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.epoch < epoch {
		k.wipeAll()
		k.epoch = epoch
	}
}

// Wipe wipes every key that is held.
func (k *Keys) Wipe() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.wipeAll()
}

func (k *Keys) wipeAll() {
	for _, l := range k.leases {
		l.key.Wipe()
	}
	clear(k.leases)
	clear(k.failures)
}

// LeaseState is what is known of one keyring version.
type LeaseState struct {
	Keyring string
	Version uint32
	// Left is how long the key is held still; zero where it is not.
	Left time.Duration
	// Root opened it last.
	Root string
	// Err is why it could not be opened the last time; nil where it could.
	Err error
}

// Leases returns the state of every version, ordered by keyring and version.
func (k *Keys) Leases() []LeaseState {
	k.mu.RLock()
	defer k.mu.RUnlock()
	var list []LeaseState
	for _, ref := range sortedRefs(k.versions) {
		if v := k.versions[ref]; !v.Status.opens() {
			continue
		}
		l := k.leases[ref]
		list = append(list, LeaseState{
			Keyring: ref.name, Version: ref.version, Left: max(0, l.until-k.Uptime()), Root: l.root, Err: k.failures[ref].err,
		})
	}
	return list
}

func sortedRefs[V any](m map[keyringRef]V) []keyringRef {
	return slices.SortedFunc(maps.Keys(m), compareRefs)
}
