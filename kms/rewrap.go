package kms

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"keywright.dev/kms/audit"
	"keywright.dev/kms/envelope"
	"keywright.dev/kms/root"
)

// ActionRewrapKeyring is the action of the entry that each transaction of a rewrap
// leaves.
const ActionRewrapKeyring = "keyring.rewrap"

const (
	// MaxRewrapPage bounds the rows of one request.
	MaxRewrapPage = 1000
	// rewrapChunk is how many rows a transaction moves, and busyChunk while machines
	// boot: the writer has them wait for as long as that takes.
	rewrapChunk = 64
	busyChunk   = 16
	// maxFailureFacts bounds the rows that one audit entry names.
	maxFailureFacts = 16
)

// Rewrapped is what one page of a rewrap did.
type Rewrapped struct {
	Keyring string
	// Current is the version that rows were moved to.
	Current uint32
	// Done counts the rows that were moved, Changed those that somebody else
	// changed meanwhile, which are as they were.
	Done, Changed int
	// Failed are the rows that do not open, which stay as they are.
	Failed []RewrapFailure
	// Next is where the next page goes on; empty after the last.
	Next string
	// Remaining counts the rows that are not on the current version.
	Remaining int64
	// RootCalls counts the versions that had to be opened for it, once each.
	RootCalls int
}

// Pause lets boots go first, and tells whether there are any.
type Pause func(context.Context) (busy bool, err error)

// RewrapFailure is a row that does not open.
type RewrapFailure struct {
	Dependent
	Keyring string // NAME@VERSION that should open it
	Detail  string
}

// RewrapPage moves the next rows of a keyring, at most limit, from other versions to
// the current one: the same secrets under a new wrapping, each opened again and
// compared before it is written. It begins where after says. Only the rows tell
// what is left to do, so that whoever begins anew, after whatever, goes on.
//
// No root is asked but for a version that is not held. pause is called before each transaction, for boots to go
// first. Each transaction leaves one audit entry that counts its rows and names
// those that do not open: an entry a row would say no more and outgrow the log.
func (s *Service) RewrapPage(ctx context.Context, by Operator, name, after string, limit int, pause Pause) (*Rewrapped, error) {
	r, err := s.newRewrap(ctx, by, name, pause)
	if err != nil {
		return nil, err
	}
	from, err := parsePosition(after)
	if err != nil {
		return nil, err
	}
	if limit < 1 || limit > MaxRewrapPage {
		return nil, usage("a page of a rewrap has 1 to %d rows", MaxRewrapPage)
	}
	if err := r.page(ctx, from, limit); err != nil {
		return nil, fmt.Errorf("rewrapping keyring/%s: %w", r.result.Keyring, err)
	}
	r.result.Remaining, err = s.remaining(ctx, r.result.Keyring, r.result.Current)
	return &r.result, err
}

// rewrap is one page under way.
type rewrap struct {
	service *Service
	by      Operator
	pause   Pause
	keyring *Keyring
	resealer
	result Rewrapped
}

// newRewrap takes over what was rotated elsewhere, so that rows move to the version
// that the rows say.
func (s *Service) newRewrap(ctx context.Context, by Operator, name string, pause Pause) (*rewrap, error) {
	if err := s.Keys.Follow(ctx); err != nil {
		return nil, err
	}
	k, err := s.FindKeyring(ctx, name)
	if err != nil {
		return nil, err
	}
	if k.Current == 0 {
		return nil, disallow("no version of the keyring is enabled: run `keywright keyring rotate %s` first", k.Name)
	}
	return &rewrap{
		service: s, by: by, pause: pause, keyring: k,
		resealer: resealer{keys: s.Keys, keyring: k.Name}, result: Rewrapped{Keyring: k.Name, Current: k.Current},
	}, nil
}

func (s *Service) remaining(ctx context.Context, keyring string, current uint32) (count int64, err error) {
	dependents, err := s.Store.Dependents(ctx, keyring)
	for _, d := range dependents {
		if d.Version != current && d.Kind != DependentOutside { // its owners rewrap it
			count += d.Count
		}
	}
	return count, err
}

// page moves service keys with the first page, for they are few.
func (r *rewrap) page(ctx context.Context, from position, limit int) error {
	if from == (position{}) && r.keyring.Name == SystemKeyring {
		if err := r.moveServiceKeys(ctx); err != nil {
			return err
		}
	}
	rows, err := r.read(ctx, from, limit)
	if err != nil {
		return err
	}
	if len(rows) == limit {
		last := &rows[len(rows)-1]
		r.result.Next = position{last.KeyringVersion, last.Ref()}.String()
	}
	r.result.RootCalls = r.toOpen(rows)
	for len(rows) > 0 {
		busy, err := r.pause(ctx)
		if err != nil {
			return err
		}
		chunk := rewrapChunk
		if busy {
			chunk = busyChunk
		}
		chunk = min(chunk, len(rows))
		if err := r.moveSecrets(ctx, rows[:chunk]); err != nil {
			return err
		}
		rows = rows[chunk:]
	}
	return nil
}

// toOpen counts the versions that rows need and that are not held.
func (r *rewrap) toOpen(rows []BoundSecret) int {
	if len(rows) == 0 {
		return 0
	}
	closed := make(map[keyringRef]bool)
	note := func(version uint32) {
		if ref := (keyringRef{r.keyring.Name, version}); !r.service.Keys.holds(ref) {
			closed[ref] = true
		}
	}
	note(r.keyring.Current)
	for i := range rows {
		note(rows[i].KeyringVersion)
	}
	return len(closed)
}

// versions are those that anything depends on, whatever state they are in, but for
// the current one.
func (r *rewrap) versions() []uint32 {
	var versions []uint32
	for _, d := range r.keyring.Dependents {
		if d.Version != r.keyring.Current && d.Kind != DependentOutside {
			versions = append(versions, d.Version)
		}
	}
	return slices.Compact(versions)
}

func (r *rewrap) read(ctx context.Context, from position, limit int) (rows []BoundSecret, err error) {
	for _, version := range r.versions() {
		after := SecretRef{}
		switch {
		case version < from.version:
			continue
		case version == from.version:
			after = from.secret
		}
		more, err := r.service.Store.SecretsOn(ctx, r.keyring.Name, version, after, limit-len(rows))
		if rows = append(rows, more...); err != nil || len(rows) == limit {
			return rows, err
		}
	}
	return rows, nil
}

// moveSecrets is one transaction, unless somebody changes a row meanwhile.
func (r *rewrap) moveSecrets(ctx context.Context, rows []BoundSecret) error {
	var moved []MovedSecret
	var failed []RewrapFailure
	for i := range rows {
		var row MovedSecret
		err := r.service.Keys.opened(ctx, func() (err error) {
			row, err = r.resealer.reseal(&rows[i])
			return err
		})
		if detail, poison := doesNotOpen(err); poison {
			failed = append(failed, RewrapFailure{dependentOf(&rows[i]), fmt.Sprintf("%s@%d", rows[i].Keyring, rows[i].KeyringVersion), detail})
			continue
		}
		if err != nil {
			return fmt.Errorf("the %s secret of volume/%s: %w", rows[i].Purpose, rows[i].Volume, err)
		}
		moved = append(moved, row)
	}
	return r.write(ctx, moved, failed)
}

// write is one transaction. Where one of the rows is not what was read, none is
// written, and each half is tried again, down to the row itself, which is left as
// it became.
func (r *rewrap) write(ctx context.Context, moved []MovedSecret, failed []RewrapFailure) error {
	err := r.commit(ctx, Key{}, failed, func(*State) (Outcome, int) { return Outcome{Moved: moved}, 0 })
	if !errors.Is(err, ErrChanged) {
		return err
	}
	if len(moved) == 1 {
		r.result.Changed++
		return r.write(ctx, nil, failed)
	}
	half := len(moved) / 2
	if err := r.write(ctx, moved[:half], failed); err != nil {
		return err
	}
	return r.write(ctx, moved[half:], nil)
}

// commit writes what move picks, with an entry that counts it.
func (r *rewrap) commit(ctx context.Context, key Key, failed []RewrapFailure, move func(*State) (out Outcome, changed int)) error {
	done, changed := 0, 0
	err := r.service.change(ctx, r.by, key, func(state State) (Outcome, error) {
		var out Outcome
		out, changed = move(&state)
		done = len(out.Moved) + len(out.ServiceKeys)
		if done == 0 && len(failed) == 0 {
			return out, nil
		}
		d, outcome := r.draft(done, failed)
		return r.service.entered(out, d, outcome, nil)
	})
	if err != nil {
		return err
	}
	r.result.Done, r.result.Changed = r.result.Done+done, r.result.Changed+changed
	r.result.Failed = append(r.result.Failed, failed...)
	return nil
}

func (r *rewrap) draft(done int, failed []RewrapFailure) (draft, audit.Outcome) {
	d := r.by.draft(ActionRewrapKeyring, "", versionObject(r.keyring.Name, r.keyring.Current))
	d.fact("rewrapped", "", strconv.Itoa(done))
	if len(failed) == 0 {
		return d, audit.Done
	}
	d.fact("failed", "", strconv.Itoa(len(failed)))
	for _, f := range failed[:min(len(failed), maxFailureFacts)] {
		d.fact("does_not_open", f.Keyring, f.Object+", "+f.Purpose)
	}
	return d, audit.Failed
}

// errKeys is of a machine whose row names keys that cannot be its own.
type errKeys struct{ detail string }

func (e *errKeys) Error() string { return e.detail }

// doesNotOpen tells a row that will open at no other time either.
func doesNotOpen(err error) (detail string, poison bool) {
	var keys *errKeys
	switch {
	case errors.As(err, &keys):
		return keys.detail, true
	case errors.Is(err, envelope.ErrOpen), errors.Is(err, envelope.ErrMalformed):
		return "it does not open under the key and for the machine that its row names", true
	case errors.Is(err, ErrNotFound):
		return "there is no key of the version that its row names", true
	case errors.Is(err, root.ErrDoesNotOpen):
		return "no root of trust opens the version that its row names", true
	}
	return "", false
}

// resealer wraps secrets anew, under the current version of a keyring.
type resealer struct {
	keys    *Keys
	keyring string
	// machine is that of the last secret, for those of one often stand together.
	machine string
	binding [32]byte
}

// reseal binds a secret to what it was bound to: the names are those of the
// machine's row, and where these are not the ones that it was sealed for, it does
// not open.
func (r *resealer) reseal(b *BoundSecret) (MovedSecret, error) {
	if err := r.bind(b); err != nil {
		return MovedSecret{}, err
	}
	c := secretContext(r.binding, b.Machine, &b.Secret, b.Purpose)
	wrapped, version, err := r.keys.rewrap(c, b.Wrapped, r.keyring)
	return MovedSecret{SecretRef: b.Ref(), Was: b.Wrapped, Keyring: r.keyring, KeyringVersion: version, Wrapped: wrapped}, err
}

func (r *resealer) bind(b *BoundSecret) error {
	if r.machine == b.Machine {
		return nil
	}
	ek, ak, refusal := keysOf(&Machine{ID: b.Machine, EK: b.EK, AK: b.AK})
	if refusal != nil {
		return &errKeys{refusal.Detail}
	}
	r.machine, r.binding = b.Machine, bindingOf(ek, ak)
	return nil
}

// rewrap opens text under c, seals what is in it under the current version of a
// keyring, and opens that again, to be sure.
func (k *Keys) rewrap(c envelope.Context, text, keyring string) (wrapped string, version uint32, err error) {
	plaintext, err := k.Unwrap(c, text)
	if err != nil {
		return "", 0, err
	}
	defer plaintext.Wipe()
	c.Keyring = keyring
	if wrapped, version, err = k.Wrap(c, plaintext); err != nil {
		return "", 0, err
	}
	c.Version = version
	again, err := k.Unwrap(c, wrapped)
	if err != nil {
		// Not wrapped: it is not the row that does not open.
		return "", 0, fmt.Errorf("opening what was just wrapped: %v", err)
	}
	defer again.Wipe()
	if !again.Equal(plaintext) {
		return "", 0, errors.New("opening what was just wrapped: it is another secret")
	}
	return wrapped, version, nil
}

// moveServiceKeys is one transaction for all of them.
func (r *rewrap) moveServiceKeys(ctx context.Context) error {
	keys, err := r.service.Keys.Store.ServiceKeys(ctx)
	if err != nil {
		return fmt.Errorf("reading the service's keys: %w", err)
	}
	var moved, before []ServiceKey
	var failed []RewrapFailure
	for _, k := range keys {
		if k.KeyringVersion == r.keyring.Current {
			continue
		}
		var row ServiceKey
		err := r.service.Keys.opened(ctx, func() (err error) {
			row, err = r.resealServiceKey(k)
			return err
		})
		if detail, poison := doesNotOpen(err); poison {
			d := Dependent{Kind: DependentServiceKey, Object: serviceKeyObject(&k), Purpose: string(k.Kind)}
			failed = append(failed, RewrapFailure{d, fmt.Sprintf("%s@%d", SystemKeyring, k.KeyringVersion), detail})
			continue
		}
		if err != nil {
			return fmt.Errorf("the service's %s key: %w", k.Kind, err)
		}
		moved, before = append(moved, row), append(before, k)
	}
	if len(moved) == 0 && len(failed) == 0 {
		return nil
	}
	return r.commit(ctx, Key{ServiceKeys: true}, failed, func(state *State) (Outcome, int) {
		var out Outcome
		for i, b := range before {
			same := func(k ServiceKey) bool { return k.Kind == b.Kind && k.ID == b.ID && k.Wrapped == b.Wrapped }
			if slices.ContainsFunc(state.ServiceKeys, same) {
				out.ServiceKeys = append(out.ServiceKeys, moved[i])
			}
		}
		return out, len(moved) - len(out.ServiceKeys)
	})
}

func (r *rewrap) resealServiceKey(row ServiceKey) (ServiceKey, error) {
	c := serviceKeyContext(row)
	c.Version = row.KeyringVersion
	var err error
	row.Wrapped, row.KeyringVersion, err = r.service.Keys.rewrap(c, row.Wrapped, SystemKeyring)
	return row, err
}
