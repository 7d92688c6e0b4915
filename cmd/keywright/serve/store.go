package serve

import (
	"context"
	"time"

	"keywright.dev/kms"
	"keywright.dev/kms/server"
	"keywright.dev/kms/store/sqlite"
)

// timedStore tells the metrics how long changes take.
type timedStore struct {
	*sqlite.Store
	metrics *server.Metrics
	clock   func() time.Time
}

// Transact implements [kms.Transactor].
func (s timedStore) Transact(ctx context.Context, key kms.Key, decide func(kms.State) (kms.Outcome, error)) error {
	began := s.clock()
	defer func() { s.metrics.Transaction(s.clock().Sub(began)) }()
	return s.Store.Transact(ctx, key, decide)
}
