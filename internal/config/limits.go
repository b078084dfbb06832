package config

import "time"

// The limits of one configuration. They bound the memory and the time that a
// bad file can cost; each is far above what a fleet of 200 sites needs.
const (
	maxFile       = 16 << 20  // bytes of YAML
	maxMarks      = 2 << 20   // characters that can begin a YAML value, a bound on the number of nodes
	maxValue      = 1 << 20   // bytes of one value after ${ENV} expansion
	maxZoneFile   = 64 << 20  // bytes of one zone file
	maxZoneBytes  = 512 << 20 // bytes of all zone files together
	maxSecretFile = 4 << 10   // bytes of one secret file
	maxTraced     = 1 << 20   // bytes of a broken file whose mistake is searched for line by line
	maxErrors     = 1000      // mistakes collected
	maxPrinted    = 50        // mistakes that Errors.Pretty prints
	maxSearches   = 50        // searches for the nearest name among sites, services and tested names
	maxExcerpt    = 120       // characters of a source line shown above the caret

	maxSites       = 1000
	maxNodes       = 100 // a site
	maxServices    = 50_000
	maxBackends    = 1000 // a pool
	maxAddresses   = 8    // of a VIP at a site, and anycast addresses of a service
	maxRules       = 10_000
	maxZones       = 10_000
	maxNames       = 100_000 // a zone
	maxListeners   = 1000
	maxRoutes      = 10_000 // a listener
	maxProtocols   = 16     // of a TLS route
	maxConditions  = 16     // of a route, on headers and on the query, and services of a split
	maxMethods     = 32     // of a route
	maxRouteName   = 64     // bytes
	maxShare       = 1_000_000
	maxRequestBody = 1 << 50 // bytes
	maxSources     = 256     // that may send a PROXY header
	maxConnections = 10_000_000
	maxClients     = 10_000_000 // remembered by a listener
	maxNetworks    = 10_000
	maxNetPrefixes = 10_000 // a network
	maxDatabases   = 16
	maxBinds       = 64
	maxPrefixes    = 1000               // announced
	maxInterface   = 15                 // bytes of an interface's name (IFNAMSIZ)
	maxPeers       = 64                 // a site
	maxCommunities = 16                 // in one place
	maxRestart     = 4095 * time.Second // of graceful restart: twelve bits
	maxFrom        = 256                // routers that connect from a prefix of peers
	maxGroups      = 256                // of peers
	maxTo          = 16                 // a prefix
	maxPrepend     = 16
	maxPeerName    = 63 // bytes of an address, a prefix or a group's name
	maxHeaders     = 32
	maxStatuses    = 32
	maxTests       = 10_000
	maxParts       = 16 // checks that one check combines, on all levels together
	maxNesting     = 3  // checks inside checks
	maxMatches     = 16 // conditions on a JSON body
	maxExpect      = 16 // records that a DNS check wants
	maxArguments   = 64 // of a command, with its name
	maxKeys        = 16 // in the secret file
	maxCanaries    = 16

	maxPath   = 4096 // bytes of a file name
	maxSocket = 107  // bytes of a unix socket's name (sockaddr_un)
	maxURL    = 2048 // bytes of a path in a check or a route
	maxHeader = 1024 // bytes of a header's value
	maxBody   = 1024 // bytes searched for in a body
	maxWeight = 1000

	maxCapacity = 1_000_000_000

	maxRegexp   = 1024 // bytes of a regular expression
	maxJSONPath = 256  // bytes of a path in a JSON body
	maxSteps    = 16   // steps of a path in a JSON body
	maxPayload  = 1024 // bytes of a datagram, sent or looked for
	maxRecord   = 512  // bytes of a record's data
	maxArgument = 1024 // bytes of an argument of a command
	maxGRPCName = 256  // bytes of a gRPC service's name
)

// The ranges of the durations.
const (
	minWait, maxWait       = 0, 5 * time.Minute
	minEvery, maxEvery     = 100 * time.Millisecond, time.Hour
	minTimeout, maxTimeout = 10 * time.Millisecond, time.Minute
	minTTL, maxTTL         = time.Second, 24 * time.Hour
	minIdle, maxIdle       = time.Second, 24 * time.Hour
	maxDNSIdle             = time.Hour
	maxLifetime            = 30 * 24 * time.Hour
	maxKeepAlive           = 2 * time.Hour
	minConnect, maxConnect = 10 * time.Millisecond, time.Minute
	minBFDInterval         = 10 * time.Millisecond
	maxBFDInterval         = time.Minute
	maxLinger              = 30 * time.Second
	minHold, maxHold       = 3 * time.Second, 65535 * time.Second
	maxWarmUp              = time.Hour
	maxDrain               = 24 * time.Hour
	minStop                = time.Second
	minLease, maxLease     = 100 * time.Millisecond, time.Minute

	minAge, maxAge           = 100 * time.Millisecond, 24 * time.Hour
	minValid, maxValid       = 0, 365 * 24 * time.Hour
	minFor, maxFor           = time.Second, time.Hour
	minHalfLife, maxHalfLife = time.Second, time.Hour
	minSlow, maxSlow         = 0, time.Hour
)

// minToken is the least number of characters in the admin token.
const minToken = 16
