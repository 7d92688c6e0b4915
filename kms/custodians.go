package kms

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"keywright.dev/kms/audit"
	"keywright.dev/kms/root"
	"keywright.dev/kms/secret"
)

// The actions on recovery by custodians.
const (
	ActionExportShares = "root.export_shares"
	ActionDrill        = "root.drill"
	ActionRecover      = "root.recover"
)

// Quorum is a root that custodians open together.
type Quorum interface {
	root.Offline
	// CheckValue tells keys apart without telling anything of them.
	CheckValue(key secret.Bytes, context []byte) (string, error)
}

// Quorum returns the configured quorum of that name; of no name, the only one.
func (s *Service) Quorum(uri string) (Quorum, error) {
	var found []Quorum
	for _, r := range s.Keys.Roots {
		if q, ok := r.(Quorum); ok && (uri == "" || uri == r.URI()) {
			found = append(found, q)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case uri != "":
		return nil, &NotFoundError{Kind: "root", Ref: uri}
	case len(found) == 0:
		return nil, disallow("no custodians are configured: name them in a file, put age-quorum:///PATH?threshold=N into server.roots, and restart the service")
	default:
		return nil, disallow("several quorums are configured: name one with --root, as keywright root list shows it")
	}
}

// CustodyWrapper is a keyring version as custodians hold it.
type CustodyWrapper struct {
	Root    string
	Keyring string
	Version uint32
	Context []byte // what the key is bound to
	Wrapped []byte
	// Check is the check value of the key in use; empty where that is not known.
	Check string
}

// Ref names the keyring version, as keyring/default@1.
func (w *CustodyWrapper) Ref() string { return w.ref().String() }

func (w *CustodyWrapper) ref() keyringRef { return keyringRef{w.Keyring, w.Version} }

// CustodyWrappers returns the wrappers of roots whose URI begins with prefix.
func CustodyWrappers(versions []KeyringVersion, prefix string) []CustodyWrapper {
	var list []CustodyWrapper
	for _, v := range versions {
		for _, w := range v.Wrappers {
			if strings.HasPrefix(w.Root, prefix) {
				list = append(list, CustodyWrapper{
					Root: w.Root, Keyring: v.Keyring, Version: v.Version, Context: keyringContext(v.Keyring, v.Version), Wrapped: w.Wrapped,
				})
			}
		}
	}
	return list
}

// maxExported bounds the wrappers of one page, in bytes.
const maxExported = 1 << 20

// ExportShares returns wrappers of a quorum from the one behind after, at most
// limit, and what comes after them; empty where there are no more. Each is verified
// with the key in use before. That they were let out is recorded before.
func (s *Service) ExportShares(ctx context.Context, by Operator, q Quorum, after string, limit int) (page []CustodyWrapper, next string, err error) {
	versions, err := s.Keys.Store.Keyrings(ctx)
	if err != nil {
		return nil, "", fmt.Errorf("exporting shares of %s: %w", q.URI(), err)
	}
	versions = living(versions)
	if after != "" {
		seen, err := parseRef(after)
		if err != nil {
			return nil, "", err
		}
		versions = slices.DeleteFunc(versions, func(v KeyringVersion) bool { return compareRefs(v.ref(), seen) <= 0 })
	}
	size := 0
	for _, v := range versions {
		w, err := s.custodyOf(ctx, q, v)
		if err != nil {
			return nil, "", err
		}
		page = append(page, w)
		if size += len(w.Wrapped); len(page) == limit || size > maxExported {
			break
		}
	}
	if len(page) < len(versions) {
		next = strings.TrimPrefix(page[len(page)-1].Ref(), "keyring/")
	}
	return page, next, s.Record(ctx, by, ActionExportShares, rootObject(q.URI()), audit.Done, audit.Fact{Name: "keyring.versions", Is: strconv.Itoa(len(page))})
}

func rootObject(uri string) string { return fmt.Sprintf("root/%.200s", uri) }

// custodyOf demands that the custodians of a quorum hold what is in use.
func (s *Service) custodyOf(ctx context.Context, q Quorum, v KeyringVersion) (CustodyWrapper, error) {
	w, found := v.wrapperOf(q.URI())
	if !found {
		return CustodyWrapper{}, disallow("%v is not wrapped for the custodians: run keywright root recovery create", v.ref())
	}
	key, err := s.Keys.copyOf(ctx, v.ref())
	if err != nil {
		return CustodyWrapper{}, err
	}
	defer key.Wipe()
	bound := keyringContext(v.Keyring, v.Version)
	if err := q.Verify(w.Wrapped, key, bound); err != nil {
		return CustodyWrapper{}, disallow("the wrapper of %v for the custodians is not what was made: "+
			"take the quorum out of server.roots, restart the service, run keywright root remove, and create it again", v.ref())
	}
	check, err := q.CheckValue(key, bound)
	return CustodyWrapper{Root: q.URI(), Keyring: v.Keyring, Version: v.Version, Context: bound, Wrapped: w.Wrapped, Check: check}, err
}

// CheckCustody demands that the custodians of a quorum hold every key in use.
func (s *Service) CheckCustody(ctx context.Context, q Quorum) error {
	versions, err := s.Keys.Store.Keyrings(ctx)
	if err != nil {
		return fmt.Errorf("checking what custodians hold: %w", err)
	}
	for _, v := range living(versions) {
		if _, err := s.custodyOf(ctx, q, v); err != nil {
			return err
		}
	}
	return nil
}

// parseRef reads default@1.
func parseRef(text string) (keyringRef, error) {
	name, number, _ := strings.Cut(text, "@")
	version, err := strconv.ParseUint(number, 10, 32)
	if err != nil {
		return keyringRef{}, usage("after is not what was next in the page before")
	}
	return keyringRef{name, uint32(version)}, nil
}

func compareRefs(a, b keyringRef) int {
	return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(a.version, b.version))
}

// Drill is what custodians showed, as an operator reports it.
type Drill struct {
	// By are the custodians who took part.
	By []string
	// Proven and Unproven are keyring versions, such as keyring/default@1; of a drill that
	// only asked for a sign of each identity there are none.
	Proven, Unproven []string
	// Missing are custodians who were asked for a sign and gave none.
	Missing []string
}

// RecordDrill enters a drill into the audit log.
func (s *Service) RecordDrill(ctx context.Context, by Operator, q Quorum, d Drill) error {
	outcome := audit.Done
	if len(d.Unproven)+len(d.Missing) > 0 || len(d.Proven)+len(d.By) == 0 {
		outcome = audit.Failed
	}
	facts := []audit.Fact{{Name: "proven", Is: strconv.Itoa(len(d.Proven))}, {Name: "unproven", Is: strconv.Itoa(len(d.Unproven))}}
	return s.Record(ctx, by, ActionDrill, rootObject(q.URI()), outcome, slices.Concat(facts,
		named("custodian", d.By), named("custodian.missing", d.Missing), named("keyring.unproven", d.Unproven))...)
}

// named returns a fact of one name for each value.
func named(name string, values []string) []audit.Fact {
	var facts []audit.Fact
	for _, v := range values {
		facts = append(facts, audit.Fact{Name: name, Is: v})
	}
	return facts
}

// RecordRecovery enters that the keys of so many keyring versions were put together
// from the shares of custodians.
func (s *Service) RecordRecovery(ctx context.Context, by Operator, quorum string, custodians []string, versions int) error {
	facts := append([]audit.Fact{{Name: "keyring.versions", Is: strconv.Itoa(versions)}}, named("custodian", custodians)...)
	return s.Record(ctx, by, ActionRecover, rootObject(quorum), audit.Done, facts...)
}
