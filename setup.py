from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent

setup(
    name="eggcrate",
    version="0.1.0.dev0",
    description="zc.buildout recipes that put a Python application into a container image",
    long_description="\n\n".join(
        (here / name).read_text(encoding="utf-8") for name in ("README.rst", "CHANGES.rst")
    ),
    long_description_content_type="text/x-rst",
    license="ZPL-2.1",
    license_files=["LICENSE.txt"],
    author="The eggcrate contributors",
    keywords="buildout recipe docker oci image virtualenv circus nginx",
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Framework :: Buildout :: Recipe",
        "Intended Audience :: Developers",
        "Intended Audience :: System Administrators",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3 :: Only",
        *(f"Programming Language :: Python :: 3.{minor}" for minor in range(10, 15)),
        "Topic :: Software Development :: Build Tools",
    ],
    packages=find_packages("src"),
    package_dir={"": "src"},
    package_data={"eggcrate": ["py.typed"]},
    python_requires=">=3.10",
    install_requires=[
        # reads an nginx configuration for the lint of nginx-config: pure Python, by nginx's
        # own makers, no dependencies
        "crossplane>=0.5.8",
        # gzip of libdeflate: the same bytes on every processor, four times as fast as zlib
        "deflate>=0.9",
        "zc.buildout>=6",
        "zc.recipe.egg>=6",
        # the bar of long work on a terminal: pure Python, kept for ten years, no dependencies
        "tqdm>=4",
        # the default installer of virtualenv-part; one binary, released every week
        "uv>=0.7",
        # markers and requirements of distributions (PEP 508); zc.buildout needs it too
        "packaging>=23",
        # reads TOML where the standard library doesn't; the standard library's is a copy of it
        "tomli>=2; python_version < '3.11'",
    ],
    extras_require={
        # talks to the Docker Engine; kept by Docker itself
        "docker": ["docker>=7"],
        # compression = zstd: the module of Python 3.14 for older ones, kept by its author
        "zstd": ["backports.zstd>=1; python_version < '3.14'"],
        "test": [
            "backports.zstd>=1; python_version < '3.14'",
            "collective.recipe.template>=3",
            "docker>=7",
            # hostile values of runtime settings, by the ten thousand
            "hypothesis>=6",
            "manuel>=1.12",
            # the oracle of our own reader of ELF files
            "pyelftools>=0.30",
            "zope.testing>=5",
            "zope.testrunner>=6.4",
        ],
    },
    entry_points={
        "zc.buildout": [
            "virtualenv-part = eggcrate.recipes.virtualenv_part:Recipe",
            "circus-config = eggcrate.recipes.circus_config:Recipe",
            "nginx-config = eggcrate.recipes.nginx_config:Recipe",
            "docker-image = eggcrate.recipes.docker_image:Recipe",
        ],
        "zc.buildout.uninstall": [
            "virtualenv-part = eggcrate.recipes.ownership:uninstall",
            "circus-config = eggcrate.recipes.ownership:uninstall",
            "nginx-config = eggcrate.recipes.ownership:uninstall",
            "docker-image = eggcrate.recipes.ownership:uninstall",
        ],
    },
    zip_safe=False,
)
