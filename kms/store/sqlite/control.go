package sqlite

import (
	"context"
	"database/sql"
	"errors"
)

// control holds the statements that frame transactions.
type control struct {
	statements map[string]*sql.Stmt
}

// The statements.
const (
	sqlBegin     = "BEGIN IMMEDIATE"
	sqlSavepoint = "SAVEPOINT change"
	sqlUndo      = "ROLLBACK TO change"
	sqlRelease   = "RELEASE change"
	sqlRollback  = "ROLLBACK"
	sqlCommit    = "COMMIT"
)

func prepareControl(ctx context.Context, conn *sql.Conn) (control, error) {
	c := control{make(map[string]*sql.Stmt)}
	for _, text := range []string{sqlBegin, sqlSavepoint, sqlUndo, sqlRelease, sqlRollback, sqlCommit} {
		statement, err := conn.PrepareContext(ctx, text) //nolint:sqlclosecheck // close does
		if err != nil {
			return control{}, errors.Join(err, c.close())
		}
		c.statements[text] = statement
	}
	return c, nil
}

func (c control) begin() error     { return c.run(sqlBegin) }
func (c control) savepoint() error { return c.run(sqlSavepoint) }
func (c control) undo() error      { return c.run(sqlUndo) }
func (c control) release() error   { return c.run(sqlRelease) }
func (c control) commit() error    { return c.run(sqlCommit) }

// rollback ends the transaction. There may be none any more, since some errors
// end it; then one can begin.
func (c control) rollback() error {
	if c.run(sqlRollback) == nil {
		return nil
	}
	return errors.Join(c.begin(), c.run(sqlRollback))
}

func (c control) run(text string) error {
	// A transaction that began is ended, whatever became of its callers.
	_, err := c.statements[text].ExecContext(context.Background())
	return err
}

func (c control) close() error {
	var errs []error
	for _, statement := range c.statements {
		errs = append(errs, statement.Close())
	}
	return errors.Join(errs...)
}
