# databases.sh: PostgreSQL and Redis for the tests of the ready-made checks. Part of bring.sh, whose functions it uses.

# They have libraries, of which a small image lacks most. Those that apt would install with them are brought along, and shown to
# them alone. Left out is what they can do without: LLVM (for jit, 100 MB), and Perl (for Debian's management of clusters).
bring_databases() {
    version=$(apt-cache -c "$incoming/apt/conf" depends postgresql 2>>"$log" |
        sed -n 's/.*Depends: postgresql-\([0-9][0-9]*\)$/\1/p' | head -n 1)
    [ -n "$version" ] || { echo "E: no package postgresql" >>"$log"; return 1; }
    redis=redis
    unpack redis-server || { redis=valkey && unpack valkey-server; } || return 1
    unpack "postgresql-$version" && unpack "postgresql-client-$version" && unpack "$redis-tools" || return 1
    for name in $(libraries_of "postgresql-$version" "$redis-server"); do unpack "$name" || return 1; done
    for name in postgres initdb; do wrap "$name" "usr/lib/postgresql/$version/bin/$name" || return 1; done
    wrap redis-server "usr/bin/$redis-server"
}

# Prints what the machine lacks of the libraries of some packages. Nothing where apt can't say so, as on a machine whose own
# packages are in disorder; whether the programs run without is seen when they are asked for their versions.
libraries_of() {
    apt-get -q -c "$incoming/apt/conf" install --print-uris --yes --no-install-recommends "$@" 2>>"$log" |
        sed -n "s/^'[^']*' \(lib[^_]*\)_.*/\1/p" | grep -Ev '^lib(llvm|perl|.*-perl$|c6$|c-bin)' || true
}

# wrap NAME PATH: a command that runs a program below .tools/root with the libraries that are there.
wrap() {
    cat >"$incoming/bin/$1" <<WRAPPER || return 1
#!/bin/sh
root=\$(cd "\$(dirname "\$(readlink -f "\$0")")/../root" && pwd -P)
LD_LIBRARY_PATH=\$(printf %s: "\$root"/usr/lib/*-linux-*/ "\$root"/lib/*-linux-*/)\${LD_LIBRARY_PATH-} exec "\$root/$2" "\$@"
WRAPPER
    chmod +x "$incoming/bin/$1"
}
