// Package sqlitedb is the SQL of package sqlite as Go: what sqlc makes of the
// schema in migrations and of the queries beside it. Each query is a method of
// [Queries], each table a struct.
//
// Invariants:
//   - Everything but this file is generated: change the SQL and run make generate.
//   - Nothing here knows what a row means; package sqlite turns rows into those of
//     package kms.
package sqlitedb
