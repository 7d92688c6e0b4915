package sqlite

import (
	"database/sql"
	"fmt"
	"net/url"
	"path/filepath"

	driver "modernc.org/sqlite"
)

// walPages is how many pages the write-ahead log holds before the writer folds
// it into the database: 16 MiB, so that pages which every group touches are
// written once for many groups.
const walPages = 4096

// options are the parameters of a connection: docs/formats/store.md says why.
type options struct {
	mode    string
	pragmas []string
}

func writerOptions() options {
	return options{"rw", []string{
		"busy_timeout(10000)",
		"journal_mode(WAL)",
		"synchronous(FULL)",
		"foreign_keys(1)",
		"trusted_schema(0)",
		"secure_delete(ON)", // of a destroyed keyring version's wrappers, free pages included
		"cell_size_check(1)",
		"temp_store(MEMORY)",
		"cache_size(-2048)", // KiB: each commit walks the cache; the kernel's is behind it
		fmt.Sprintf("wal_autocheckpoint(%d)", walPages),
		fmt.Sprintf("journal_size_limit(%d)", 4*walPages*4096),
	}}
}

func readerOptions() options {
	return options{"ro", []string{
		"busy_timeout(10000)",
		"query_only(1)",
		"trusted_schema(0)",
		"cell_size_check(1)",
		"temp_store(MEMORY)",
		"cache_size(-16384)", // KiB
	}}
}

// copyOptions are for a file that nobody else uses and that must end up whole
// in itself, without a write-ahead log.
func copyOptions() options {
	return options{"rw", []string{
		"journal_mode(DELETE)",
		"synchronous(FULL)",
		"foreign_keys(1)",
		"trusted_schema(0)",
		"cell_size_check(1)",
		"temp_store(MEMORY)",
	}}
}

// openDB opens the database file at path, which must exist.
func openDB(path string, o options) (*sql.DB, error) {
	name, err := dataSource(path, o)
	if err != nil {
		return nil, err
	}
	connector, err := driver.NewConnector(name)
	if err != nil {
		return nil, err
	}
	return sql.OpenDB(connector), nil
}

func dataSource(path string, o options) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	query := url.Values{"mode": {o.mode}, "_dqs": {"0"}, "_pragma": o.pragmas}
	name := url.URL{Scheme: "file", Path: path, RawQuery: query.Encode()}
	return name.String(), nil
}
