// Package serve wires the service: it makes of a configuration and a data folder
// the store, the roots, the service's own keys, the domain and its listeners,
// and runs them until it is told to stop.
//
// It refuses to decide anything itself: which store and which root are used is
// all that is chosen here.
package serve
