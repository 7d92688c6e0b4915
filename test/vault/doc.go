// Package vault holds keywright.dev/clients/vault against the real Transit
// engine: that of HashiCorp Vault, in this process, on storage in memory. What is
// around it in a Vault is a thin front: tokens, policies, ways to sign in, the
// seal, quotas, outages.
//
// It is a module of its own. Vault is licensed under the BUSL and pulls in
// hundreds of modules: neither may come near what is shipped. So nothing imports
// this package, and `go test ./...` at the top does not see it; the tier
// integration of test/run runs it, and its benchmarks run with those of make bench.
package vault
