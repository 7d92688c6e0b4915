// Package server owns the listeners: what arrives is limited, decoded strictly,
// turned into calls of the domain, and answered.
//
// There are three listeners, each with its own routes and none of the others':
// guests (TLS), operators (a unix socket), metrics (loopback).
//
// Invariants:
//   - Every route names an action. One that names none, or an operators' route
//     whose action the policy schema does not have, does not start.
//   - An operators' route acts only after the policy engine allowed that action
//     on that object to that caller; an attempt that it refused is recorded.
//   - Size, rate and concurrency are limited before anything is parsed, and each
//     limit has an answer that says when to come again.
//   - Errors become answers in one place, by one table, in one form, and repeat
//     no value of the request.
//   - No key or release depends on a header, a cookie or a source address.
//
// It refuses to decide about machines, keys and evidence, and to store anything.
package server
