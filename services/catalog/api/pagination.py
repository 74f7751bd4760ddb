"""Pages whose content was found elsewhere, perhaps in the cache."""

from __future__ import annotations

import re

from django.core.paginator import Paginator
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from common.pagination import Pages
from services.catalog.listing import Page

_NUMBER = re.compile("[1-9][0-9]{0,5}", re.ASCII)


class ListingPages(Pages):
    """``?page=`` and ``?page_size=``, 400 where they are no numbers."""

    def asked(self, request: Request) -> tuple[int, int]:
        """Return the page's number and size."""
        size = self._number(request, self.page_size_query_param, self.page_size)
        return self._number(request, self.page_query_param, 1), min(size, self.max_page_size)

    def response(self, request: Request, page: Page, number: int, size: int) -> Response:
        """Return the answer, with the addresses of the pages before and after."""
        self.request = request
        self.page = Paginator(range(page["count"]), size).page(number)
        self.display_page_controls = self.page.paginator.num_pages > 1
        return self.get_paginated_response(page["results"])

    def _number(self, request: Request, name: str, default: int) -> int:
        text = request.query_params.get(name)
        if not text:
            return default
        if not _NUMBER.fullmatch(text):
            raise ValidationError({name: "A whole number from 1 to 999999."}, code="invalid")
        return int(text)
