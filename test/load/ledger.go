package load

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/tlog"
	_ "modernc.org/sqlite" // the store's file is looked at without the store

	"keywright.dev/kms/api"
	"keywright.dev/kms/audit"
	"keywright.dev/kms/store/sqlite"
)

// Ledger is an exported audit log, verified without the service.
type Ledger struct {
	Report audit.Report
	// Index is the place of each signed entry.
	Index map[string]int64

	verifier *audit.Verifier
	head     []byte
}

// ReadLedger exports the audit log over the operators' socket and verifies it
// with key, and against heads that were kept.
func ReadLedger(ctx context.Context, operator *api.OperatorClient, key string, kept ...[]byte) (*Ledger, error) {
	verifier, err := audit.ParseVerifier(key)
	if err != nil {
		return nil, err
	}
	var trees []audit.Tree
	for _, head := range kept {
		tree, err := verifier.OpenHead(head)
		if err != nil {
			return nil, err
		}
		trees = append(trees, tree)
	}
	var export bytes.Buffer
	if err := operator.ExportAudit(ctx, &export); err != nil {
		return nil, err
	}
	l := &Ledger{Index: make(map[string]int64), verifier: verifier}
	if l.Report, err = audit.VerifyExport(bytes.NewReader(export.Bytes()), verifier, trees...); err != nil {
		return nil, err
	}
	return l, l.index(&export)
}

// index reads the lines of docs/formats/audit.md.
func (l *Ledger) index(export *bytes.Buffer) error {
	lines := bufio.NewScanner(export)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var line struct {
			Index *int64          `json:"index"`
			Leaf  json.RawMessage `json:"leaf"`
			Head  string          `json:"head"`
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			return fmt.Errorf("reading the audit export: %w", err)
		}
		if line.Index != nil {
			l.Index[string(line.Leaf)] = *line.Index
		}
		if line.Head != "" {
			l.head = []byte(line.Head)
		}
	}
	return lines.Err()
}

// Count counts entries of an action by their object: those that match.
func (l *Ledger) Count(action string, match func(audit.Entry) bool) (map[string]int, error) {
	counts := make(map[string]int)
	for leaf := range l.Index {
		if !strings.Contains(leaf, action) {
			continue
		}
		entry, err := l.verifier.Verify([]byte(leaf))
		if err != nil {
			return nil, err
		}
		if entry.Action == action && match(entry) {
			counts[entry.Object]++
		}
	}
	return counts, nil
}

// CheckIncluded proves with the hashes that the stopped service left in data
// that each signed entry stands in the exported tree.
func (l *Ledger) CheckIncluded(ctx context.Context, data string, entries [][]byte) (err error) {
	store, err := sqlite.Open(ctx, sqlite.Config{Path: filepath.Join(data, "store.db"), Clock: time.Now})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	tree, err := l.verifier.OpenHead(l.head)
	if err != nil {
		return err
	}
	hashes := cached(store.TreeHashes(ctx))
	for _, entry := range entries {
		index, ok := l.Index[string(entry)]
		if !ok {
			return fmt.Errorf("a receipt is not in the log: %s", entry)
		}
		proof, err := audit.Prove(hashes, l.head, tree, index)
		if err != nil {
			return err
		}
		if _, err := l.verifier.CheckInclusion(entry, proof); err != nil {
			return err
		}
	}
	return nil
}

// cached remembers hashes: proofs of neighbours share most of theirs.
func cached(from audit.HashReader) audit.HashReader {
	known := make(map[int64]audit.Hash)
	return tlog.HashReaderFunc(func(indexes []int64) ([]audit.Hash, error) {
		var missing []int64
		for _, i := range indexes {
			if _, ok := known[i]; !ok {
				missing = append(missing, i)
			}
		}
		read, err := from.ReadHashes(missing)
		if err != nil {
			return nil, err
		}
		for i, hash := range read {
			known[missing[i]] = hash
		}
		hashes := make([]audit.Hash, len(indexes))
		for i, index := range indexes {
			hashes[i] = known[index]
		}
		return hashes, nil
	})
}

// CheckIntegrity has SQLite look for damage in the store that a stopped service
// left in data.
func CheckIntegrity(ctx context.Context, data string) (err error) {
	db, err := sql.Open("sqlite", "file:"+filepath.Join(data, "store.db"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	var said string
	if err := db.QueryRowContext(ctx, "PRAGMA integrity_check").Scan(&said); err != nil {
		return err
	}
	if !strings.EqualFold(said, "ok") {
		return fmt.Errorf("the store is damaged: %s", said)
	}
	var orphans int
	if err := db.QueryRowContext(ctx, "SELECT count(*) FROM pragma_foreign_key_check").Scan(&orphans); err != nil {
		return err
	}
	if orphans > 0 {
		return fmt.Errorf("%d rows of the store name rows that are not there", orphans)
	}
	return nil
}
