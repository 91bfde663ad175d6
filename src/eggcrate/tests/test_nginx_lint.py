"""The lint of nginx configurations: each mistake is found at its line, and nothing else is."""

from __future__ import annotations

import pathlib
import re
import tempfile
import textwrap
import time
import unittest
from collections.abc import Collection

from eggcrate.config import nginx_lint, references
from eggcrate.errors import EggcrateError

REPOSITORY = pathlib.Path(__file__).parents[3]
RUN = pathlib.Path("/run/site")

GOLDEN = r"""
# one site behind a proxy that ends TLS, and a second one with HTTPS of its own
worker_processes 2;
worker_rlimit_nofile 4096;
pid /run/site/nginx.pid;
error_log stderr warn;

events {
    worker_connections 1024;
}

http {
    include /etc/nginx/mime.types;
    default_type application/octet-stream;
    client_body_temp_path /run/site/body;
    proxy_temp_path /run/site/proxy;
    fastcgi_temp_path /run/site/fastcgi;
    uwsgi_temp_path /run/site/uwsgi;
    scgi_temp_path /run/site/scgi;
    client_max_body_size 10m;
    keepalive_timeout 65s;

    log_format lines escape=json
        '{"time":"$time_iso8601","request":{"method":"$request_method",'
        '"uri":"$request_uri"},"status":$status}';
    access_log /dev/stdout lines;
    gzip on;
    gzip_types text/css application/json
               image/svg+xml;

    set_real_ip_from 10.0.0.0/8;
    real_ip_header X-Forwarded-For;
    geo $realip_remote_addr $known {
        default 0;
        10.0.0.0/8 1;
    }
    map "$known:$http_x_forwarded_proto" $proto {
        default $scheme;
        "1:https" https;
    }
    map $http_host $port {
        default "";
        "~^[^:]+(?<client_port>:[0-9]{1,5})$" $client_port;
    }
    map $http_upgrade $upgrade {
        default upgrade;
        "" "";
    }
    map $scheme $hsts {
        default "";
        https "max-age=63072000";
    }
    map $uri $old_pages {
        default "";
        ~^/news/(\d+)$ /articles/$1;
    }
    add_header X-Content-Type-Options nosniff always;
    add_header Strict-Transport-Security $hsts always;

    upstream shop {
        server unix:/run/site/shop.sock fail_timeout=0;
        keepalive 8;
    }

    proxy_http_version 1.1;
    proxy_set_header Host $host$port;
    proxy_set_header X-Forwarded-For $remote_addr;
    proxy_set_header X-Forwarded-Proto $proto;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection $upgrade;
    proxy_read_timeout 60s;

    server {
        listen 8080 default_server;
        server_name _;
        return 444;
    }

    server {
        listen 8080;
        server_name shop.example www.shop.example;

        location = /health {
            access_log off;
            default_type text/plain;
            return 200 "fine: ${status}\n";
        }
        location ~ "^/static/(?<hashed>.+\.[0-9a-f]{12}\.[^/]+)$" {
            alias /srv/shop/static/$hashed;
        }
        location /static/ {
            alias /srv/shop/static/;
        }
        location /media/ {
            root /srv/shop/files;
            try_files $uri =404;
        }
        location /protected/ {
            internal;
            alias /srv/shop/protected/;
        }
        location /status {
            stub_status;
            allow 127.0.0.1;
            deny all;
        }
        location /staff/ {
            auth_basic "Staff";
            auth_basic_user_file /etc/shop/passwords;
            proxy_pass http://shop;
        }
        location /api/ {
            proxy_pass http://shop/v1/;
        }
        location /old/ {
            if ($old_pages) {
                return 301 $old_pages;
            }
            rewrite ^/old/(.*)$ /new/$1 permanent;
        }
        location / {
            try_files $uri @shop;
        }
        location @shop {
            proxy_pass http://shop;
        }
        error_page 502 504 /50x.html;
        location = /50x.html {
            root /srv/shop/errors;
            internal;
        }
    }

    server {
        listen 8443 ssl;
        server_name shop.example;
        ssl_certificate /etc/shop/cert.pem;
        ssl_certificate_key /etc/shop/key.pem;
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_ciphers HIGH:!aNULL:!MD5;

        location / {
            return 301 https://shop.example$request_uri;
        }
    }
}
""".lstrip()

# What is replaced in GOLDEN by what, the rule that finds it, a part of its message, and a part
# of the line at which it is found.
MISTAKES: tuple[tuple[str, str, str, str, str], ...] = (
    # left over
    (
        "shop.example www",
        "${SERVER_NAME} www",
        "placeholder",
        "${SERVER_NAME}",
        "${SERVER_NAME}",
    ),
    ("listen 8080;", "listen ${PORT:-8080};", "placeholder", "${PORT:-8080}", "${PORT:-"),
    ("listen 8080;", "listen {{ port }};", "placeholder", "{{ port }}", "{{ port }}"),
    ("listen 8080;", "listen %(port)s;", "placeholder", "%(port)s", "%(port)s"),
    ("listen 8080;", "listen <%= @port %>;", "placeholder", "<%= @port %>", "<%="),
    ("listen 8080;", "listen $(circus.sockets.web);", "placeholder", "$(circus", "$(circus"),
    ("shop.example www", "$server_name www", "placeholder", "$server_name", "$server_name"),
    ('"$request_uri"}', '"$REQUEST_URI"}', "placeholder", "$REQUEST_URI", "$REQUEST_URI"),
    ("/new/$1", "/new/$2", "capture", "$2 is empty", "/new/$2"),
    ('"fine:', '"costs $5, fine:', "capture", "$5 is empty", "costs $5"),
    ("alias /srv/shop/static/;", "alias /srv/shop/static/$1/;", "capture", "$1", "static/$1"),
    ("/articles/$1", "/articles/$2", "capture", "$2", "/articles/$2"),
    # files
    (
        "    gzip on;",
        "    include conf.d/*.conf;",
        "include-missing",
        "conf.d/*.conf",
        "conf.d",
    ),
    (
        "    gzip on;",
        "    include /srv/b/a.conf;",
        "include-missing",
        "/srv/b/a.conf",
        "b/a.conf",
    ),
    ("/etc/shop/cert", "/srv/b/cert", "file-missing", "/srv/b/cert.pem is not", "b/cert.pem"),
    (
        "root /srv/shop/errors",
        "root /srv/b/errors",
        "file-missing",
        "errors/50x.html",
        "= /50x",
    ),
    ("root /srv/shop/errors", "alias /srv/b/x.html", "file-missing", "/srv/b/x", "= /50x"),
    ("/etc/shop/passwords", "/srv/b/users", "file-missing", "/srv/b/users", "/srv/b/users"),
    # locations
    ("location /static/ {", "location /static {", "alias-traversal", "/static../x", "static/;"),
    ("shop/static/;", "shop/static;", "alias-slash", "/srv/shop/staticx", "shop/static;"),
    ("shop/static/$hashed", "shop/static", "alias-regex", "regular", "alias /srv/shop/static;"),
    (
        "root /srv/shop/files",
        "root /srv/shop/media",
        "root-doubled",
        "/media/media",
        "op/media;",
    ),
    ("root /srv/shop/files", "root /", "root-exposed", "root / serves", "root /;"),
    ("root /srv/shop/files", "root /srv", "root-exposed", "root /srv serves", "root /srv;"),
    ("alias /srv/shop/static/;", "alias /srv/b/;", "root-exposed", "/srv/b/", "/srv/b/;"),
    ("alias /srv/shop/static/;", "alias /etc/;", "root-exposed", "/etc/", "/etc/;"),
    ("location /status {", "location status {", "location-path", "location status", "n status"),
    ("location /status {", "location /stat*s {", "location-path", "/stat*s", "/stat*s"),
    (r"location /status {", r"location ^/status$ {", "location-path", "no path", "^/status$"),
    ("location /media/ {", r"location ~ .png$ {", "regex-dot", ".png$", "~ .png$"),
    ("$uri =404", "$uri index.html", "try-files", "index.html", "$uri index.html"),
    ("$uri @shop", "$uri @shopp", "named-location", "write @shop,", "@shopp"),
    ("504 /50x.html", "504 = @down", "named-location", "@down", "@down"),
    # headers
    ("    proxy_set_header Host $host$port;\n", "", "proxy-host", "shop is not told", "v1/;"),
    ("X-Forwarded-Proto $proto", "X-Proto2 $proto", "proxy-proto", "HTTPS", "v1/;"),
    (
        "            proxy_pass http://shop/v1/;",
        "            proxy_set_header X-Api 1;\n            proxy_pass http://shop/v1/;",
        "proxy-header-lost",
        "such as Host",
        "X-Api",
    ),
    (
        "alias /srv/shop/static/;",
        "alias /srv/shop/static/;\n            add_header Cache-Control public;",
        "add-header-lost",
        "such as X-Content-Type-Options",
        "Cache-Control",
    ),
    (
        "    proxy_read_timeout",
        "    proxy_set_header host $host; proxy_read_timeout",
        "header-twice",
        "host stands there a second time",
        "header host $host",
    ),
    ("nosniff always", '"no\n    sniff" always', "header-newline", "end of a line", '"no'),
    ("X-Content-Type-Options", "Content-Type", "content-type-header", "second", "Content-Type"),
    ("Host $host$port", "Host $http_x_forwarded_host", "host-spoofed", "client", "r Host"),
    (
        "Proto $proto",
        "Proto $http_x_forwarded_proto",
        "forwarded-spoofed",
        "Proto",
        "r X-Forwarded-P",
    ),
    (
        '"$known:$http_x_forwarded_proto" $proto {',
        '$http_x_forwarded_proto $proto {\n        "" http;',
        "forwarded-spoofed",
        "Proto",
        "r X-Forwarded-P",
    ),
    (
        'map "$known:$http_x_forwarded_proto" $proto {\n        default $scheme;',
        "map $scheme $proto {\n        default $http_x_forwarded_proto;",
        "forwarded-spoofed",
        "Proto",
        "r X-Forwarded-P",
    ),
    (
        "            proxy_pass http://shop/v1/;",
        "            set $to $http_x_forwarded_proto;\n            proxy_set_header "
        "X-Forwarded-Proto $to;\n            proxy_pass http://shop/v1/;",
        "forwarded-spoofed",
        "Proto",
        "Proto $to",
    ),
    (
        "For $remote_addr",
        "For $http_x_forwarded_for",
        "forwarded-spoofed",
        "For",
        "r X-Forwarded-F",
    ),
    ("from 10.0.0.0/8", "from 0.0.0.0/0", "trust-everybody", "0.0.0.0/0", "real_ip_from"),
    ("from 10.0.0.0/8", "from ::/0", "trust-everybody", "::/0", "real_ip_from"),
    ("from 10.0.0.0/8", "from 10.0.0.0/0", "trust-everybody", "10.0.0.0/0", "real_ip_from"),
    # where requests go
    (
        "http://shop/v1/",
        "http://$http_x_backend",
        "proxy-target-open",
        "http_x_backend",
        "_x_b",
    ),
    ("http://shop/v1/", "http://$arg_to/", "proxy-target-open", "$arg_to", "$arg_to"),
    ("http://shop/v1/", "http://$host:81", "proxy-target-open", "$host", "$host:81"),
    (
        "location /api/ {",
        "location /api {",
        "proxy-slash",
        "/api/x would become /v1//x",
        "/v1/;",
    ),
    ("shop/v1/;", "shop/v1;", "proxy-slash", "/api/x would become /v1x", "/v1;"),
    ("http://shop/v1/", "http://shpo/v1/", "upstream-name", "write shop,", "shpo"),
    (
        "    upstream shop {",
        "    upstream blog {\n        server 127.0.0.1:8001;\n    }\n    upstream shop {",
        "upstream-unused",
        "nobody uses upstream blog",
        "upstream blog",
    ),
    ("    proxy_http_version 1.1;\n", "", "websocket-version", "HTTP/1.0", "Upgrade $http"),
    (
        "    proxy_set_header Connection $upgrade;\n",
        "",
        "websocket-connection",
        "without Connection",
        "Upgrade $http",
    ),
    (
        "            proxy_pass http://shop/v1/;",
        "            set $to http://api.example;\n            proxy_pass $to;",
        "resolver-missing",
        "api.example comes from a variable",
        "proxy_pass $to",
    ),
    # values
    ("body_size 10m", "body_size 0", "body-unlimited", "no limit", "max_body"),
    ("body_size 10m", "body_size 10", "body-tiny", "10 bytes", "max_body"),
    (
        "        default upgrade;\n",
        "",
        "map-default",
        "$upgrade has no default",
        "map $http_upgrade",
    ),
    ("age=63072000", "age=3600", "hsts-short", "max-age=3600", "max-age"),
    ("Security $hsts", 'Security "max-age=300"', "hsts-short", "max-age=300", "max-age=300"),
    ("read_timeout 60s", "read_timeout 100000", "timeout-units", "100000", "100000"),
    ("nofile 4096", "nofile 512", "nofile", "512 is less than", "nofile 512"),
    # servers
    ("listen 8443 ssl;", "listen 8443;", "ssl-unused", "of no use", "shop/cert.pem"),
    ("listen 8443 ssl;", "listen 443;", "listen-ssl", "port 443", "listen 443"),
    ("listen 8443 ssl;", "listen 80 ssl;", "listen-ssl", "port 80", "listen 80"),
    (
        "name _;",
        "name www.shop.example;",
        "server-twice",
        "www.shop.example at *:8080",
        "example www",
    ),
    (
        "www.shop.example;",
        "https://shop.example;",
        "server-name",
        "https://shop.",
        "https://shop",
    ),
    (
        "www.shop.example;",
        "shop.example:8080;",
        "server-name",
        "shop.example:8080",
        "example:8",
    ),
    ("shop.example www", "shop.example, www", "server-name", "shop.example,", "example, www"),
    (
        "protocols TLSv1.2",
        "protocols TLSv1 TLSv1.2",
        "ssl-protocols",
        "has TLSv1,",
        "protocols",
    ),
    ("ciphers HIGH", "ciphers HIGH:RC4-SHA", "ssl-ciphers", "RC4-SHA", "RC4-SHA"),
    ("ciphers HIGH:!aNULL", "ciphers HIGH:aNULL", "ssl-ciphers", "aNULL", "HIGH:aNULL"),
    # requests
    (
        "            proxy_pass http://shop/v1/;",
        "            if ($arg_a) { proxy_pass http://shop; }\n            proxy_pass http://shop/v1/;",
        "if-in-location",
        "proxy_pass in an if",
        "if ($arg_a)",
    ),
    (
        "example$request_uri",
        "example$uri",
        "header-injection",
        "$uri is decoded",
        "example$uri",
    ),
    ("nosniff always", "$document_uri", "header-injection", "$document_uri", "$document_uri"),
    (
        "For $remote_addr",
        "Path $uri",
        "header-injection",
        "$uri is decoded",
        "X-Forwarded-Path",
    ),
    ("http://shop/v1/", "http://shop/v1$uri", "header-injection", "$uri is decoded", "v1$uri"),
    (
        "        location /status {",
        "        location ~ ^/a/([^/]*)$ {\n            return 302 /b/$1;\n        }\n"
        "        location /status {",
        "header-injection",
        "$1 is decoded",
        "/b/$1",
    ),
    (
        "https://shop.example$request_uri",
        "$arg_next",
        "open-redirect",
        "$arg_next",
        "$arg_next",
    ),
    ("            deny all;\n", "", "allow-without-deny", "allows all", "allow 127"),
    (
        "            stub_status;",
        "            return 200;",
        "return-bypasses-allow",
        "allow",
        "n 200;",
    ),
    (
        "        location /api/ {\n            proxy_pass http://shop/v1/;",
        "        allow 10.0.0.0/8;\n        deny all;\n        location /api/ {\n"
        "            return 200 $request_id;",
        "return-bypasses-allow",
        "before deny of nginx.conf.in, line",
        "$request_id",
    ),
    (
        'return 200 "fine: ${status}\\n";\n        }',
        'return 200 "fine: ${status}\\n";\n        }\n        deny all;',
        "return-bypasses-allow",
        "before deny of",
        "fine",
    ),
    (
        "            auth_basic_user_file /etc/shop/passwords;\n",
        "",
        "auth-basic",
        "nobody for a password",
        "auth_basic ",
    ),
    (
        '            auth_basic "Staff";\n',
        "",
        "auth-basic",
        "without auth_basic",
        "auth_basic_user",
    ),
    (
        "            allow 127.0.0.1;\n            deny all;\n",
        "",
        "status-open",
        "everybody can read stub_status",
        "stub_status",
    ),
    # what nginx writes
    ("error_log stderr warn", "error_log off", "error-log-off", "name off", "error_log off"),
    (
        "access_log /dev/stdout",
        "access_log stdout",
        "log-path",
        "/dev/stdout",
        "access_log stdout",
    ),
    ("error_log stderr", "error_log logs/e.log", "log-path", "logs/e.log", "error_log logs"),
    ("/dev/stdout", "/var/log/nginx/a.log", "root-path", "only root", "/var/log/nginx"),
    (
        "pid /run/site/nginx.pid",
        "pid /run/nginx.pid",
        "root-path",
        "/run/nginx.pid",
        "pid /run",
    ),
    ("pid /run/site/nginx.pid;\n", "", "default-path", "no pid", "http {"),
    ("    proxy_temp_path /run/site/proxy;\n", "", "default-path", "proxy_temp_path", "http {"),
    # the structure
    ("10m;", "10m", "structure", "client_max_body_size has no semicolon", "max_body"),
    ("listen 8443 ssl;", "listen 8443 ssl", "structure", "listen has no semicolon", "8443 ssl"),
    ("www.shop.example;", "www.shop.example", "structure", "server_name has no", "www.shop"),
    ("    upstream shop {", "    upstream shop {{", "structure", 'unexpected "{"', "shop {{"),
    ("        location @shop {", "        location @shop {}", "structure", '"}"', ""),
    ("access_log off;", "sendfile maybe;", "structure", '"maybe"', "sendfile maybe"),
    ("access_log off;", "upstream x {}", "structure", "not allowed here", "upstream x"),
    (
        "access_log off;",
        "proxy_pass a b c;",
        "structure",
        "number of arguments",
        "proxy_pass a",
    ),
    ("deny all;\n        }", "deny all;", "structure", "location /status has", "/status {"),
    ("access_log off;", 'return 200 "x;', "structure", "", ""),
    ("access_log off;", "lissten 80;", "structure", "write listen,", "lissten"),
)

# Configurations that are as their authors want them
GOOD: tuple[tuple[str, str], ...] = (
    (
        "gunicorn's way",
        """\
        worker_processes 1;
        user nobody nogroup;
        error_log /var/log/nginx/error.log warn;
        pid /var/run/nginx.pid;
        events { worker_connections 1024; accept_mutex off; }
        http {
            include /etc/nginx/mime.types;
            default_type application/octet-stream;
            access_log /var/log/nginx/access.log combined;
            sendfile on;
            upstream app_server { server unix:/tmp/gunicorn.sock fail_timeout=0; }
            server { listen 80 default_server; return 444; }
            server {
                listen 80 deferred;
                client_max_body_size 4G;
                server_name example.com www.example.com;
                keepalive_timeout 5;
                root /path/to/app/current/public;
                location / { try_files $uri @proxy_to_app; }
                location @proxy_to_app {
                    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
                    proxy_set_header X-Forwarded-Proto $scheme;
                    proxy_set_header Host $http_host;
                    proxy_redirect off;
                    proxy_pass http://app_server;
                }
                error_page 500 502 503 504 /500.html;
                location = /500.html { root /path/to/app/current/public; }
            }
        }
        """,
    ),
    (
        "a site of static files, careful about everything",
        r"""
        user www-data;
        worker_processes auto;
        worker_rlimit_nofile 8192;
        events { worker_connections 8000; }
        error_log /var/log/nginx/error.log warn;
        pid /var/run/nginx.pid;
        http {
            server_tokens off;
            types { text/html html htm; image/svg+xml svg svgz; default x; }
            log_format main '$remote_addr - $remote_user [$time_local] "$request" '
                            '$status $body_bytes_sent "$http_referer" "{{" "}}"';
            access_log /var/log/nginx/access.log main;
            map $sent_http_content_type $x_frame_options { ~*text/html DENY; }
            map $sent_http_content_type $cors { ~*image/ "*"; }
            map $sent_http_content_type $expires { default 1y; ~*text/html off; "" -1; }
            expires $expires;
            ssl_protocols TLSv1.2 TLSv1.3;
            ssl_ciphers EECDH+CHACHA20:EECDH+AES:!RC4:!MD5:!3DES;
            server { listen [::]:80 default_server deferred; listen 80 default_server deferred;
                     server_name _; return 444; }
            server {
                listen [::]:443 ssl; listen 443 ssl;
                server_name www.example.com;
                ssl_certificate /etc/certs/a.crt; ssl_certificate_key /etc/certs/a.key;
                return 301 $scheme://example.com$request_uri;
            }
            server {
                listen [::]:443 ssl; listen 443 ssl;
                server_name example.com;
                root /var/www/example.com/public;
                ssl_certificate /etc/certs/a.crt; ssl_certificate_key /etc/certs/a.key;
                error_page 404 /404.html;
                add_header X-Frame-Options $x_frame_options always;
                add_header Strict-Transport-Security "max-age=31536000" always;
                add_header Access-Control-Allow-Origin $cors;
                location ~* /\.(?!well-known\/) { deny all; }
                location ~* (?:#.*#|\.(?:bak|conf|dist|sql|sw[op])|~)$ { deny all; return 404; }
                location = /robots.txt { access_log off; log_not_found off; }
                location ~* "^/(?<year>\d{4})/(.+)\.html$" { rewrite ^ /$year/ last; }
                location /cors {
                    if ($request_method = OPTIONS) {
                        add_header Access-Control-Max-Age 1728000;
                        add_header X-Frame-Options $x_frame_options always;
                        add_header Strict-Transport-Security "max-age=31536000" always;
                        add_header Access-Control-Allow-Origin $cors;
                        return 204;
                    }
                }
                location = /favicon.ico { alias /var/www/icons/favicon.ico; }
                if ($host ~ ^www\.(.+)$) { return 301 https://$1$request_uri; }
            }
        }
        """,
    ),
    (
        "Django with media files, X-Accel-Redirect and PHP beside it",
        r"""
        user www-data;
        events {}
        http {
            include /etc/nginx/mime.types;
            include /etc/nginx/conf.d/*.conf;
            upstream django { server 127.0.0.1:8000; server 127.0.0.1:8001 backup; }
            server {
                listen 80;
                server_name ~^(?<name>\w+)\.example\.com$ .example.net "";
                charset utf-8;
                client_max_body_size 75M;
                location /media { alias /srv/project/media; }
                location /static { alias /srv/project/static; }
                location /files/ { internal; alias /srv/files/; }
                location /tenant/ { alias /srv/tenants/$name/; }
                location / {
                    include /etc/nginx/proxy_params;
                    proxy_set_header X-Tenant $1;
                    proxy_pass http://django;
                }
                location /uwsgi/ { include /etc/nginx/uwsgi_params; uwsgi_pass unix:/a; }
                location ~ [^/]\.php(/|$) {
                    fastcgi_split_path_info ^(.+?\.php)(/.*)$;
                    if (!-f $document_root$fastcgi_script_name) { return 404; }
                    fastcgi_pass php:9000;
                    fastcgi_param SCRIPT_FILENAME $document_root$fastcgi_script_name;
                    fastcgi_param HTTP_PROXY "";
                }
                location = /auth {
                    internal;
                    proxy_pass http://django/check;
                    proxy_pass_request_body off;
                    proxy_set_header Content-Length "";
                    proxy_set_header Host $host;
                    proxy_set_header X-Original-URI $request_uri;
                }
                location /office/ { satisfy any; allow 10.0.0.0/8; auth_basic a;
                                    auth_basic_user_file /etc/nginx/users;
                                    auth_request /auth; root /srv/www; }
                location /set { set $A_NAME 1; return 200 $A_NAME; }
            }
        }
        """,
    ),
    (
        "Zope, told of hosts in the path",
        r"""
        user a;
        events {}
        http {
            upstream zope { server 127.0.0.1:8080; }
            upstream volto { server volto:3000; }
            server {
                listen 80;
                server_name plone.example;
                set $root /VirtualHostBase/$scheme/$host:$server_port/Plone/VirtualHostRoot;
                location /a { rewrite ^/a(.*)$ $root$1 break; proxy_pass http://zope; }
            }
            server {
                listen 81;
                location ~ /\+\+api\+\+($|/.*) {
                    rewrite ^/\+\+api\+\+($|/.*)
                            /VirtualHostBase/http/p.example:80/Plone/++api++/VirtualHostRoot$1
                            break;
                    proxy_pass http://zope;
                }
                location /b/ {
                    proxy_pass http://zope/VirtualHostBase/http/p.example:80/b/VirtualHostRoot/;
                }
                location / {
                    proxy_set_header X-Forwarded-Host $http_host;
                    proxy_set_header X-Forwarded-Proto $scheme;
                    proxy_pass http://volto;
                }
            }
        }
        """,
    ),
    (
        "preflights, and types that nginx does not know",
        """\
        user a;
        events {}
        http {
            upstream a { server 127.0.0.1:81; }
            server {
                listen 80;
                location / {
                    if ($request_method = 'OPTIONS') {
                        add_header 'Access-Control-Allow-Origin' '*';
                        add_header 'Content-Type' 'text/plain; charset=utf-8';
                        add_header 'Content-Length' 0;
                        return 204;
                    }
                    if ($request_method = 'POST') {
                        add_header 'Access-Control-Allow-Origin' '*' always;
                    }
                    if ($request_method = 'GET') {
                        add_header 'Access-Control-Allow-Origin' '*' always;
                    }
                    proxy_pass http://a;
                    proxy_set_header Host $host;
                    proxy_set_header X-Forwarded-Proto $scheme;
                }
                location /bucket/ {
                    proxy_hide_header Content-Type;
                    add_header Content-Type application/octet-stream;
                    proxy_pass https://bucket.example/;
                }
                location /raw/ {
                    types {}
                    default_type "";
                    add_header Content-Type application/x-raw;
                    root /srv/www;
                }
                location = /text { default_type ""; add_header Content-Type a/b; return 200 x; }
            }
        }
        """,
    ),
    (
        "who may come is asked elsewhere",
        """\
        user a;
        events {}
        http {
            server {
                listen [::1]:80;
                server_name [::1] localhost 127.0.0.1;
                location / { auth_request /_auth; root /srv/www; }
                location = /_auth {
                    internal;
                    proxy_pass http://127.0.0.1:9000/auth;
                    proxy_pass_request_body off;
                    proxy_set_header Content-Length "";
                    proxy_set_header X-Original-URI $request_uri;
                }
            }
        }
        """,
    ),
    (
        "answers for all beside what only some may see",
        r"""
        user a;
        events {}
        http {
            server {
                listen 80;
                auth_basic Staging;
                auth_basic_user_file /etc/nginx/users;
                allow 10.0.0.0/8;
                deny all;
                error_page 403 /403.html;
                error_page 404 @none;
                location = /403.html { internal; return 200 "for $remote_addr: no"; }
                location @none { return 200 "$uri is not there"; }
                location = /robots.txt { return 200 "User-agent: *\nDisallow: /\n"; }
                location = /health { auth_basic off; allow all; return 200 "ok\n"; }
                location ~ ^/\.well-known/acme-challenge/(\w+)$ { return 200 "$1.XYZ"; }
                location /open { auth_basic off; allow all; deny all; return 200 $uri; }
                location /old { return 301 /new; }
                location /gone { return 410; }
                location /down { return 503 "later"; }
                location /empty { return 204; }
                location / { root /srv/staging; }
            }
        }
        """,
    ),
    (
        "headers of proxies that are known",
        r"""
        user a;
        events {}
        http {
            geo $realip_remote_addr $known { default 0; 10.0.0.0/8 1; }
            map $known $proto { default $scheme; 1 $http_x_forwarded_proto; }
            map "$known:$http_x_forwarded_host" $asked {
                default $host;
                "~^1:(?<theirs>[\w.]+)$" $theirs;
            }
            server {
                listen 80;
                set $again $scheme;
                if ($known) { set $again $http_x_forwarded_protocol; }
                location / {
                    proxy_set_header Host $asked;
                    proxy_set_header X-Forwarded-Host $asked;
                    proxy_set_header X-Forwarded-Proto $proto;
                    proxy_set_header X-Forwarded-Protocol $again;
                    proxy_pass http://127.0.0.1:8000;
                }
            }
        }
        """,
    ),
    (
        "directives of modules",
        """\
        user a;
        events {}
        http {
            brotli on;
            brotli_static on;
            more_set_headers 'Server: none';
            zstd on;
            js_import main.js;
            vhost_traffic_status_zone;
            upstream a { sticky; server 127.0.0.1:81; }
            server {
                listen 80;
                modsecurity on;
                location /e { echo hello; }
                location /l { content_by_lua_block { ngx.say("hello") } }
                location /p { push_stream_subscriber; proxy_cache_purge on; fancyindex on; }
                location / { grpc_pass a; }
            }
        }
        stream { server { listen 1; proxy_pass 127.0.0.1:2; } }
        rtmp { server { listen 1935; application live { live on; } } }
        """,
    ),
    ("a location", "location /x/ { proxy_pass http://127.0.0.1:8000; }\n"),
    ("directives of a location", "proxy_set_header Host $host;\nproxy_http_version 1.1;\n"),
    ("a server", "server { listen 80; location / { proxy_pass http://127.0.0.1:8000; } }\n"),
    ("entries of a map", "~^/a/(.*)$ /b/$1;\n/x 1;\ndefault 0;\nindex a b c;\nlisten x y z;\n"),
    ("nothing", "# nothing\n\n"),
    (
        "streams",
        """\
        pid /run/site/nginx.pid;
        error_log stderr;
        events {}
        stream {
            log_format basic '$remote_addr $status';
            access_log /dev/stdout basic;
            map $ssl_preread_server_name $name { a.example a; default b; }
            upstream a { server 10.0.0.1:443; }
            upstream b { server 10.0.0.2:443; }
            server { listen 443; ssl_preread on; proxy_pass $name; proxy_timeout 10m; }
            server { listen 53 udp; allow 10.0.0.0/8; deny all; proxy_pass 127.0.0.1:5353; }
        }
        """,
    ),
    (
        "mail",
        """\
        pid /run/site/nginx.pid;
        error_log stderr;
        events {}
        mail {
            server_name mail.example;
            auth_http 127.0.0.1:9000/auth;
            server { listen 143; protocol imap; }
            server { listen 993 ssl; ssl_certificate /a; ssl_certificate_key /b; }
        }
        """,
    ),
    (
        "Lua",
        """\
        user a;
        events {}
        http {
            init_by_lua_block { local t = {{ "a" }}; local s = "${UPPER} } {" }
            server {
                listen 80;
                location / { content_by_lua_block { ngx.say("$5") if x then ngx.exit(1) end } }
                location /a { access_by_lua 'return "$9 ${NAME}"'; root /srv/www; }
            }
        }
        """,
    ),
    (
        "braces around names, values of the container, odd spaces",
        "user a;\r\nevents {}\r\nhttp { access_log /dev/null;\r\n"
        "    map ${http_upgrade} ${up} { default a; }\r\n"
        "    server { listen @{port} default_server; server_name @{names};\r\n"
        "        client_max_body_size @{size}; gzip @{gzip};\r\n"
        "        set $a ${scheme} ; add_header ${scheme} $up always; #\r\n"
        "        location =/x { return 200 'it is {{ not }} a \\'template\\''; }\r\n"
        "        location ~^/y { return 404; } } } # the end".replace("{{ not }}", "{not}"),
    ),
)


def rendered(text: str, name: str = "nginx.conf.in") -> references.Rendered:
    return references.Rendered(name, text, tuple(range(1, text.count("\n") + 2)))


def lint(
    text: str,
    directory: pathlib.Path = pathlib.Path("/srv/b"),
    *,
    ignored: Collection[str] = (),
    nginx_missing: bool = False,
) -> tuple[list[EggcrateError], list[str]]:
    """What is said of a text that would stand in the parts of a buildout."""
    return nginx_lint.complaints(
        rendered(text),
        output=directory / "parts/nginx/nginx.conf",
        directory=directory,
        run_directory=RUN,
        shown=lambda path: path.relative_to(directory).as_posix(),
        ignored=ignored,
        nginx_missing=nginx_missing,
    )


def said(text: str, *, nginx_missing: bool = True) -> list[str]:
    errors, warnings = lint(text, nginx_missing=nginx_missing)
    return [*map(str, errors), *warnings]


class Good(unittest.TestCase):
    maxDiff = None

    def test_the_golden_text(self) -> None:
        self.assertEqual(said(GOLDEN), [])

    def test_configurations_of_others(self) -> None:
        for title, text in GOOD:
            with self.subTest(title):
                errors, _ = lint(textwrap.dedent(text), nginx_missing=True)
                self.assertEqual(list(map(str, errors)), [])

    def test_the_demo(self) -> None:
        text = (REPOSITORY / "templates/nginx.conf.in").read_text(encoding="utf-8")
        values = {
            "${nginx:run-directory}": str(RUN),
            "${custom:trusted_proxies}": "127.0.0.1",
            "${custom:webapp_port}": "8080",
            "${custom:server_name}": "shop.example",
            "${static:location}": "/srv/b/parts/static",
        }
        for reference, value in values.items():
            self.assertIn(reference, text)
            text = text.replace(reference, value)
        self.assertEqual(said(text), [])

    def test_it_takes_no_time(self) -> None:
        said(GOLDEN)  # crossplane is loaded
        text = GOLDEN + "# a comment\n" * 150
        best = min(self.seconds(text) for _ in range(5))
        self.assertLess(best, 0.25)  # a tenth of it, where nobody else computes

    def seconds(self, text: str) -> float:
        begin = time.perf_counter()
        said(text)
        return time.perf_counter() - begin


class Mistakes(unittest.TestCase):
    maxDiff = None

    def test_each_is_found_at_its_line(self) -> None:
        for old, new, rule, part, at in MISTAKES:
            with self.subTest(rule, new=new or f"without {old}"):
                self.assertIn(old, GOLDEN)
                text = GOLDEN.replace(old, new, 1)
                found = [one for one in said(text) if f"({rule});" in one and part in one]
                self.assertTrue(found, said(text))
                lines = text.split("\n")
                numbers = [
                    int(match[1])
                    for one in found
                    if (match := re.match(r"nginx\.conf\.in, line (\d+): ", one))
                ]
                self.assertEqual(len(numbers), len(found))
                self.assertTrue(
                    any(at in lines[number - 1] for number in numbers),
                    f"{found} is not where {at!r} is",
                )

    def test_each_rule_has_a_mistake(self) -> None:
        tried = {rule for _, _, rule, _, _ in MISTAKES}
        self.assertEqual(set(nginx_lint.RULES) - tried, {"upstream-keepalive"})

    def test_ignored_rules_say_nothing(self) -> None:
        for old, new, rule, part, _ in MISTAKES:
            if rule == "structure":
                continue
            with self.subTest(rule, new=new):
                errors, warnings = lint(GOLDEN.replace(old, new, 1), ignored=[rule])
                left = [str(one) for one in (*errors, *warnings) if f"({rule})" in str(one)]
                self.assertEqual(left, [])
                self.assertTrue(part is not None)

    def test_every_message_says_what_to_do(self) -> None:
        for old, new, _, _, _ in MISTAKES:
            for one in said(GOLDEN.replace(old, new, 1)):
                with self.subTest(one):
                    match = re.fullmatch(
                        r".*, line \d+: .* \(([a-z-]+)\); (.*)", one, re.DOTALL
                    )
                    assert match
                    self.assertTrue(match[2].endswith(f", or add {match[1]} to ignore"))
                    self.assertIn(match[1], nginx_lint.RULES)

    def test_an_unknown_rule(self) -> None:
        errors, warnings = lint(GOLDEN, ignored=["alias-slahs", "proxy-host"])
        self.assertEqual(
            list(map(str, errors)),
            [
                "ignore has 'alias-slahs', which is the id of no rule; write alias-slash, the "
                "nearest id there is, or remove it"
            ],
        )
        self.assertEqual(warnings, [])

    def test_what_may_be_meant_is_a_warning(self) -> None:
        errors, warnings = lint(GOLDEN.replace("age=63072000", "age=300"))
        self.assertEqual(errors, [])
        self.assertEqual(
            warnings,
            [
                "nginx.conf.in, line 50: max-age=300 is less than a year, so browsers soon "
                "forget it (hsts-short); write max-age=63072000 once all works, or add "
                "hsts-short to ignore"
            ],
        )

    def test_an_upstream_s_keepalive(self) -> None:
        text = GOLDEN.replace("    proxy_set_header Upgrade $http_upgrade;\n", "")
        _, warnings = lint(text.replace("    proxy_http_version 1.1;\n", ""))
        self.assertEqual(len(warnings), 3)  # one for each proxy_pass
        self.assertIn("(upstream-keepalive)", warnings[0])

    def test_they_come_in_the_order_of_the_lines(self) -> None:
        text = GOLDEN.replace("10m", "0").replace("$uri @shop", "$uri @shpo")
        text = text.replace("nofile 4096", "nofile 1")
        rules = [str(one).partition(";")[0].rpartition("(")[2] for one in lint(text)[0]]
        self.assertEqual(rules, ["nofile)", "body-unlimited)", "named-location)"])


class Includes(unittest.TestCase):
    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.directory = pathlib.Path(temporary.name).resolve()
        (self.directory / "parts/nginx/conf.d").mkdir(parents=True)

    def write(self, name: str, text: str) -> None:
        (self.directory / "parts/nginx" / name).write_text(text, encoding="utf-8")

    def test_mistakes_in_files_of_the_buildout(self) -> None:
        self.write("conf.d/a.conf", "\nclient_max_body_size 0;\n")
        self.write("conf.d/b.conf", "sendfile maybe;\n")
        text = GOLDEN.replace("    client_max_body_size 10m;", "    include conf.d/*.conf;")
        self.assertEqual(
            [str(one).partition(" (")[0] for one in lint(text, self.directory)[0]],
            [
                "parts/nginx/conf.d/a.conf, line 2: client_max_body_size 0 is no limit at all",
                'parts/nginx/conf.d/b.conf, line 1: invalid value "maybe" in "sendfile" '
                'directive, it must be "on" or "off"',
            ],
        )

    def test_what_they_set_counts(self) -> None:
        self.write("headers", "proxy_set_header Host $host;\n")
        text = GOLDEN.replace("    proxy_set_header Host $host$port;", "    include headers;")
        self.assertEqual(lint(text, self.directory), ([], []))

    def test_what_only_the_image_has_may_set_anything(self) -> None:
        text = GOLDEN.replace("    proxy_set_header Host $host$port;", "    include /etc/h;")
        self.assertEqual(lint(text, self.directory), ([], []))

    def test_a_file_that_includes_itself(self) -> None:
        self.write("self.conf", "\ninclude self.conf;\n")
        text = GOLDEN.replace("    gzip on;", "    include self.conf;")
        self.assertEqual(
            list(map(str, lint(text, self.directory)[0])),
            [
                "parts/nginx/self.conf, line 2: include self.conf leads back to "
                "parts/nginx/self.conf, which nginx.conf.in, line 26 has included, and nginx "
                "would read on until it crashes (structure); take the include out, or name "
                "the files without this one, or add structure to ignore"
            ],
        )
        self.assertEqual(lint(text, self.directory, ignored=["structure"]), ([], []))

    def test_files_that_include_each_other(self) -> None:
        self.write("a.conf", "include b.conf;\n")
        self.write("b.conf", "gzip_vary on;\ninclude a.conf;\nclient_max_body_size 0;\n")
        text = GOLDEN.replace("    client_max_body_size 10m;", "    include a.conf;")
        found = [str(one).partition(", which")[0] for one in lint(text, self.directory)[0]]
        self.assertEqual(len(found), 2)  # the other is the size, which stays an error
        self.assertEqual(
            found[0],
            "parts/nginx/b.conf, line 2: include a.conf leads back to parts/nginx/a.conf",
        )

    def test_a_text_that_includes_itself(self) -> None:
        text = GOLDEN.replace("    gzip on;", "    include ./*.conf;")
        for exists in (False, True):  # it is the same when it is written for the first time
            with self.subTest(exists=exists):
                if exists:
                    self.write("nginx.conf", text)
                errors, _ = lint(text, self.directory)
                self.assertEqual(len(errors), 1)
                self.assertIn("the file of this very text", str(errors[0]))

    def test_the_same_file_twice_is_no_circle(self) -> None:
        self.write("headers", "proxy_buffering on;\n")
        text = GOLDEN.replace("listen 8080;", "listen 8080; include headers;")
        text = text.replace("listen 8443 ssl;", "listen 8443 ssl; include headers;")
        self.assertEqual(lint(text, self.directory), ([], []))

    def test_an_error_page_that_is_there(self) -> None:
        self.write("50x.html", "<p>later")
        text = GOLDEN.replace("root /srv/shop/errors", f"root {self.directory}/parts/nginx")
        self.assertEqual(lint(text, self.directory), ([], []))

    def test_places_of_a_template_of_several_lines(self) -> None:
        template = references.parse("${a:b}\nclient_max_body_size 0;\n", "x.in")
        errors, _ = nginx_lint.complaints(
            template.render(lambda section, option: "gzip on;\ngzip_vary on;"),
            output=self.directory / "x",
            directory=self.directory,
            run_directory=RUN,
            shown=str,
        )
        self.assertEqual([str(one).partition(":")[0] for one in errors], ["x.in, line 2"])


if __name__ == "__main__":
    unittest.main()
