package sqlite_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"keywright.dev/kms"
	"keywright.dev/kms/audit"
	"keywright.dev/kms/store/sqlite"
	"keywright.dev/kms/store/storetest"
)

// boots changes one machine per worker, over and over, and sequences beside it.
func boots(path string) error {
	return load(path, func(worker int, n uint64) error {
		_, err := fmt.Fprintf(os.Stdout, "%d %d\n", worker, n)
		return err
	}, func(*sqlite.Store) error { select {} })
}

// load keeps a store busy with workers, a sequencer and what stands beside them,
// until one of them fails.
func load(path string, acknowledge func(worker int, n uint64) error, beside func(*sqlite.Store) error) error {
	s, err := sqlite.Open(context.Background(), sqlite.Config{Path: path})
	if err == nil {
		err = storetest.AddKeyring(s)
	}
	if err != nil {
		return err
	}
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, ed25519.SeedSize))
	signer, err := audit.NewSigner("audit.example.com/keywright", key)
	if err != nil {
		return err
	}
	ended := make(chan error)
	for w := range workers {
		go func() { ended <- work(s, signer, w, acknowledge) }()
	}
	go func() { ended <- sequence(s, signer) }()
	go func() { ended <- beside(s) }()
	return <-ended
}

// work acknowledges each change: the worker and its machine's clock.
func work(s *sqlite.Store, signer *audit.Signer, worker int, acknowledge func(worker int, n uint64) error) error {
	for {
		n, err := change(s, signer, worker)
		if err == nil {
			err = acknowledge(worker, n)
		}
		if err != nil {
			return err
		}
	}
}

// change enrols the worker's machine, or releases to it; with the machine's
// clock goes a challenge and an audit entry of the same number.
func change(s *sqlite.Store, signer *audit.Signer, worker int) (n uint64, err error) {
	err = s.Transact(context.Background(), kms.Key{Machine: storetest.MachineID(worker)}, func(state kms.State) (kms.Outcome, error) {
		out := enrolled(worker)
		if state.Machine != nil {
			out = kms.Outcome{Machine: state.Machine}
			n = state.Machine.Counters.Clock + 1
		} else {
			n = 1
		}
		out.Machine.Counters.Clock = n
		out.Redeem = &kms.Redemption{Challenge: workerChallenge(worker, n), KeepUntil: time.Now().Add(time.Hour)}
		entry, err := workerEntry(signer, out.Machine.ID, worker, n)
		out.Entries = []kms.LogEntry{entry}
		return out, err
	})
	return n, err
}

func workerChallenge(worker int, n uint64) [32]byte {
	return storetest.Digest(fmt.Sprintf("challenge of worker %d", worker), int(n))
}

func workerEntry(signer *audit.Signer, machine string, worker int, n uint64) (kms.LogEntry, error) {
	var id audit.ID
	binary.BigEndian.PutUint64(id[:], uint64(worker)+1)
	binary.BigEndian.PutUint64(id[8:], n)
	signed, err := signer.Sign(audit.Entry{
		ID: id, Time: storetest.Epoch(), Actor: audit.Actor{Kind: audit.ActorMachine, ID: machine},
		Action: "boot.release", Outcome: audit.Allowed, Count: 1,
	})
	return kms.LogEntry{Signed: signed, Machine: machine, Action: "boot.release", Time: storetest.Epoch()}, err
}

func sequence(s *sqlite.Store, signer *audit.Signer) error {
	for {
		if _, err := s.Sequence(context.Background(), 100, storetest.Extend(signer)); err != nil {
			return err
		}
		time.Sleep(time.Millisecond)
	}
}

// backups makes one backup after the other under load.
func backups(path string) error {
	return load(path, func(int, uint64) error { return nil }, func(s *sqlite.Store) error {
		for n := 0; ; n++ {
			if err := s.Backup(context.Background(), fmt.Sprintf("%s.backup-%d", path, n)); err != nil {
				return err
			}
			fmt.Println("backup", n)
		}
	})
}

// failures changes machines until the disk takes no more, and then shows that
// the store takes no more either. Its last line is a word.
func failures(path string) error {
	signal.Ignore(syscall.SIGXFSZ)
	limit := syscall.Rlimit{Cur: 400 << 10, Max: 1 << 40}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		return err
	}
	err := load(path, func(worker int, n uint64) error {
		_, err := fmt.Fprintf(os.Stdout, "%d %d\n", worker, n)
		return err
	}, func(s *sqlite.Store) error {
		for s.Err() == nil {
			time.Sleep(time.Millisecond)
		}
		limit.Cur = limit.Max
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
			return err
		}
		if err := transact(s, kms.Key{}, kms.Outcome{}); !errors.Is(err, kms.ErrUnavailable) {
			return fmt.Errorf("the store goes on: %w", err)
		}
		fmt.Println("failed")
		select {}
	})
	if !errors.Is(err, kms.ErrUnavailable) {
		return err
	}
	select {} // until the other one is done, and kills
}

// restores restores two backups in turn over each other.
func restores(path string) error {
	for n := 0; ; n++ {
		_, err := sqlite.Restore(context.Background(), sqlite.Restoration{
			From: fmt.Sprintf("%s.backup-%d", path, n%2), Path: path, Replace: true,
		})
		if err != nil {
			return err
		}
		fmt.Println(0, n)
	}
}

// creations makes one store after the other.
func creations(dir string) error {
	for n := 0; ; n++ {
		s, err := sqlite.Open(context.Background(), sqlite.Config{
			Path: filepath.Join(dir, fmt.Sprint(n), "store.db"),
		})
		if err != nil {
			return err
		}
		if err := s.Close(); err != nil {
			return err
		}
		fmt.Println(0, n)
	}
}
